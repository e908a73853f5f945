package p9

// Tversion is size[4] Tversion tag[2] msize[4] version[s].
type Tversion struct {
	Msize   uint32
	Version []byte
}

// Type implements Message.
func (*Tversion) Type() Type { return TypeTversion }

// Decode implements Message.
func (m *Tversion) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tversion) decode(d *decoder) {
	m.Msize = d.u32()
	m.Version = d.str()
}

func (m *Tversion) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.Msize)
	return appendStr(b, m.Version)
}

// Tauth is size[4] Tauth tag[2] afid[4] uname[s] aname[s] n_uname[4].
type Tauth struct {
	AFID   uint32
	Uname  []byte
	Aname  []byte
	NUname uint32
}

// Type implements Message.
func (*Tauth) Type() Type { return TypeTauth }

// Decode implements Message.
func (m *Tauth) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tauth) decode(d *decoder) {
	m.AFID = d.u32()
	m.Uname = d.str()
	m.Aname = d.str()
	m.NUname = d.u32()
}

func (m *Tauth) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.AFID)
	b = appendStr(b, m.Uname)
	b = appendStr(b, m.Aname)
	return le.AppendUint32(b, m.NUname)
}

// Tattach is size[4] Tattach tag[2] fid[4] afid[4] uname[s] aname[s] n_uname[4].
type Tattach struct {
	FID    uint32
	AFID   uint32
	Uname  []byte
	Aname  []byte
	NUname uint32
}

// Type implements Message.
func (*Tattach) Type() Type { return TypeTattach }

// Decode implements Message.
func (m *Tattach) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tattach) decode(d *decoder) {
	m.FID = d.u32()
	m.AFID = d.u32()
	m.Uname = d.str()
	m.Aname = d.str()
	m.NUname = d.u32()
}

func (m *Tattach) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = le.AppendUint32(b, m.AFID)
	b = appendStr(b, m.Uname)
	b = appendStr(b, m.Aname)
	return le.AppendUint32(b, m.NUname)
}

// Tflush is size[4] Tflush tag[2] oldtag[2].
type Tflush struct {
	OldTag uint16
}

// Type implements Message.
func (*Tflush) Type() Type { return TypeTflush }

// Decode implements Message.
func (m *Tflush) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tflush) decode(d *decoder) {
	m.OldTag = d.u16()
}

func (m *Tflush) appendBody(b []byte) []byte {
	return le.AppendUint16(b, m.OldTag)
}

// Tclunk is size[4] Tclunk tag[2] fid[4].
type Tclunk struct {
	FID uint32
}

// Type implements Message.
func (*Tclunk) Type() Type { return TypeTclunk }

// Decode implements Message.
func (m *Tclunk) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tclunk) decode(d *decoder) {
	m.FID = d.u32()
}

func (m *Tclunk) appendBody(b []byte) []byte {
	return le.AppendUint32(b, m.FID)
}

// Tremove is size[4] Tremove tag[2] fid[4].
type Tremove struct {
	FID uint32
}

// Type implements Message.
func (*Tremove) Type() Type { return TypeTremove }

// Decode implements Message.
func (m *Tremove) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tremove) decode(d *decoder) {
	m.FID = d.u32()
}

func (m *Tremove) appendBody(b []byte) []byte {
	return le.AppendUint32(b, m.FID)
}

// Tstatfs is size[4] Tstatfs tag[2] fid[4].
type Tstatfs struct {
	FID uint32
}

// Type implements Message.
func (*Tstatfs) Type() Type { return TypeTstatfs }

// Decode implements Message.
func (m *Tstatfs) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tstatfs) decode(d *decoder) {
	m.FID = d.u32()
}

func (m *Tstatfs) appendBody(b []byte) []byte {
	return le.AppendUint32(b, m.FID)
}
