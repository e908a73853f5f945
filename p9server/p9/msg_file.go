package p9

// Tlopen is size[4] Tlopen tag[2] fid[4] flags[4].
type Tlopen struct {
	FID   uint32
	Flags uint32
}

// Type implements Message.
func (*Tlopen) Type() Type { return TypeTlopen }

// Decode implements Message.
func (m *Tlopen) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tlopen) decode(d *decoder) {
	m.FID = d.u32()
	m.Flags = d.u32()
}

func (m *Tlopen) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	return le.AppendUint32(b, m.Flags)
}

// Treadlink is size[4] Treadlink tag[2] fid[4].
type Treadlink struct {
	FID uint32
}

// Type implements Message.
func (*Treadlink) Type() Type { return TypeTreadlink }

// Decode implements Message.
func (m *Treadlink) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Treadlink) decode(d *decoder) {
	m.FID = d.u32()
}

func (m *Treadlink) appendBody(b []byte) []byte {
	return le.AppendUint32(b, m.FID)
}

// Tgetattr is size[4] Tgetattr tag[2] fid[4] request_mask[8].
type Tgetattr struct {
	FID  uint32
	Mask uint64
}

// Type implements Message.
func (*Tgetattr) Type() Type { return TypeTgetattr }

// Decode implements Message.
func (m *Tgetattr) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tgetattr) decode(d *decoder) {
	m.FID = d.u32()
	m.Mask = d.u64()
}

func (m *Tgetattr) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	return le.AppendUint64(b, m.Mask)
}

// Tsetattr is size[4] Tsetattr tag[2] fid[4] valid[4] mode[4] uid[4] gid[4] size[8]
// atime_sec[8] atime_nsec[8] mtime_sec[8] mtime_nsec[8].
type Tsetattr struct {
	FID       uint32
	Valid     uint32
	Mode      uint32
	UID       uint32
	GID       uint32
	Size      uint64
	AtimeSec  uint64
	AtimeNsec uint64
	MtimeSec  uint64
	MtimeNsec uint64
}

// Type implements Message.
func (*Tsetattr) Type() Type { return TypeTsetattr }

// Decode implements Message.
func (m *Tsetattr) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tsetattr) decode(d *decoder) {
	m.FID = d.u32()
	m.Valid = d.u32()
	m.Mode = d.u32()
	m.UID = d.u32()
	m.GID = d.u32()
	m.Size = d.u64()
	m.AtimeSec = d.u64()
	m.AtimeNsec = d.u64()
	m.MtimeSec = d.u64()
	m.MtimeNsec = d.u64()
}

func (m *Tsetattr) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = le.AppendUint32(b, m.Valid)
	b = le.AppendUint32(b, m.Mode)
	b = le.AppendUint32(b, m.UID)
	b = le.AppendUint32(b, m.GID)
	b = le.AppendUint64(b, m.Size)
	b = le.AppendUint64(b, m.AtimeSec)
	b = le.AppendUint64(b, m.AtimeNsec)
	b = le.AppendUint64(b, m.MtimeSec)
	return le.AppendUint64(b, m.MtimeNsec)
}

// Txattrwalk is size[4] Txattrwalk tag[2] fid[4] newfid[4] name[s].
type Txattrwalk struct {
	FID    uint32
	NewFID uint32
	Name   []byte
}

// Type implements Message.
func (*Txattrwalk) Type() Type { return TypeTxattrwalk }

// Decode implements Message.
func (m *Txattrwalk) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Txattrwalk) decode(d *decoder) {
	m.FID = d.u32()
	m.NewFID = d.u32()
	m.Name = d.str()
}

func (m *Txattrwalk) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = le.AppendUint32(b, m.NewFID)
	return appendStr(b, m.Name)
}

// Txattrcreate is size[4] Txattrcreate tag[2] fid[4] name[s] attr_size[8] flags[4].
type Txattrcreate struct {
	FID   uint32
	Name  []byte
	Size  uint64
	Flags uint32
}

// Type implements Message.
func (*Txattrcreate) Type() Type { return TypeTxattrcreate }

// Decode implements Message.
func (m *Txattrcreate) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Txattrcreate) decode(d *decoder) {
	m.FID = d.u32()
	m.Name = d.str()
	m.Size = d.u64()
	m.Flags = d.u32()
}

func (m *Txattrcreate) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = appendStr(b, m.Name)
	b = le.AppendUint64(b, m.Size)
	return le.AppendUint32(b, m.Flags)
}

// Treaddir is size[4] Treaddir tag[2] fid[4] offset[8] count[4].
type Treaddir struct {
	FID    uint32
	Offset uint64
	Count  uint32
}

// Type implements Message.
func (*Treaddir) Type() Type { return TypeTreaddir }

// Decode implements Message.
func (m *Treaddir) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Treaddir) decode(d *decoder) {
	m.FID = d.u32()
	m.Offset = d.u64()
	m.Count = d.u32()
}

func (m *Treaddir) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = le.AppendUint64(b, m.Offset)
	return le.AppendUint32(b, m.Count)
}

// Tfsync is size[4] Tfsync tag[2] fid[4] datasync[4].
type Tfsync struct {
	FID      uint32
	DataSync uint32
}

// Type implements Message.
func (*Tfsync) Type() Type { return TypeTfsync }

// Decode implements Message.
func (m *Tfsync) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tfsync) decode(d *decoder) {
	m.FID = d.u32()
	m.DataSync = 0
	if len(d.b) > 0 { // clients older than the field leave it out
		m.DataSync = d.u32()
	}
}

func (m *Tfsync) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	return le.AppendUint32(b, m.DataSync)
}

// Tlock is size[4] Tlock tag[2] fid[4] type[1] flags[4] start[8] length[8]
// proc_id[4] client_id[s].
type Tlock struct {
	FID      uint32
	Kind     uint8
	Flags    uint32
	Start    uint64
	Length   uint64
	ProcID   uint32
	ClientID []byte
}

// Type implements Message.
func (*Tlock) Type() Type { return TypeTlock }

// Decode implements Message.
func (m *Tlock) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tlock) decode(d *decoder) {
	m.FID = d.u32()
	m.Kind = d.u8()
	m.Flags = d.u32()
	m.Start = d.u64()
	m.Length = d.u64()
	m.ProcID = d.u32()
	m.ClientID = d.str()
}

func (m *Tlock) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = append(b, m.Kind)
	b = le.AppendUint32(b, m.Flags)
	b = le.AppendUint64(b, m.Start)
	b = le.AppendUint64(b, m.Length)
	b = le.AppendUint32(b, m.ProcID)
	return appendStr(b, m.ClientID)
}

// Tgetlock is size[4] Tgetlock tag[2] fid[4] type[1] start[8] length[8] proc_id[4]
// client_id[s].
type Tgetlock struct {
	FID      uint32
	Kind     uint8
	Start    uint64
	Length   uint64
	ProcID   uint32
	ClientID []byte
}

// Type implements Message.
func (*Tgetlock) Type() Type { return TypeTgetlock }

// Decode implements Message.
func (m *Tgetlock) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tgetlock) decode(d *decoder) {
	m.FID = d.u32()
	m.Kind = d.u8()
	m.Start = d.u64()
	m.Length = d.u64()
	m.ProcID = d.u32()
	m.ClientID = d.str()
}

func (m *Tgetlock) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = append(b, m.Kind)
	b = le.AppendUint64(b, m.Start)
	b = le.AppendUint64(b, m.Length)
	b = le.AppendUint32(b, m.ProcID)
	return appendStr(b, m.ClientID)
}

// Tread is size[4] Tread tag[2] fid[4] offset[8] count[4].
type Tread struct {
	FID    uint32
	Offset uint64
	Count  uint32
}

// Type implements Message.
func (*Tread) Type() Type { return TypeTread }

// Decode implements Message.
func (m *Tread) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tread) decode(d *decoder) {
	m.FID = d.u32()
	m.Offset = d.u64()
	m.Count = d.u32()
}

func (m *Tread) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = le.AppendUint64(b, m.Offset)
	return le.AppendUint32(b, m.Count)
}
