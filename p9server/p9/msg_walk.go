package p9

// Twalk is size[4] Twalk tag[2] fid[4] newfid[4] nwname[2] nwname*(wname[s]).
type Twalk struct {
	FID    uint32
	NewFID uint32
	N      int // names used
	Names  [MaxWalk][]byte
}

// Type implements Message.
func (*Twalk) Type() Type { return TypeTwalk }

// Decode implements Message.
func (m *Twalk) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Twalk) decode(d *decoder) {
	m.FID = d.u32()
	m.NewFID = d.u32()
	m.N = int(d.u16())
	if m.N > MaxWalk {
		m.N = 0
		d.bad = true
		return
	}
	for i := range m.N {
		m.Names[i] = d.str()
	}
}

func (m *Twalk) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = le.AppendUint32(b, m.NewFID)
	b = le.AppendUint16(b, uint16(m.N))
	for _, n := range m.Names[:m.N] {
		b = appendStr(b, n)
	}
	return b
}

// Twrite is size[4] Twrite tag[2] fid[4] offset[8] count[4] data[count].
// Decode sees the fixed part only: the data stays where the guest put it.
type Twrite struct {
	FID    uint32
	Offset uint64
	Count  uint32
}

// Type implements Message.
func (*Twrite) Type() Type { return TypeTwrite }

// Decode implements Message.
func (m *Twrite) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Twrite) decode(d *decoder) {
	m.FID = d.u32()
	m.Offset = d.u64()
	m.Count = d.u32()
}

func (m *Twrite) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = le.AppendUint64(b, m.Offset)
	return le.AppendUint32(b, m.Count)
}
