package p9

// Tlcreate is size[4] Tlcreate tag[2] fid[4] name[s] flags[4] mode[4] gid[4].
type Tlcreate struct {
	FID   uint32
	Name  []byte
	Flags uint32
	Mode  uint32
	GID   uint32
}

// Type implements Message.
func (*Tlcreate) Type() Type { return TypeTlcreate }

// Decode implements Message.
func (m *Tlcreate) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tlcreate) decode(d *decoder) {
	m.FID = d.u32()
	m.Name = d.str()
	m.Flags = d.u32()
	m.Mode = d.u32()
	m.GID = d.u32()
}

func (m *Tlcreate) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = appendStr(b, m.Name)
	b = le.AppendUint32(b, m.Flags)
	b = le.AppendUint32(b, m.Mode)
	return le.AppendUint32(b, m.GID)
}

// Tsymlink is size[4] Tsymlink tag[2] fid[4] name[s] symtgt[s] gid[4].
type Tsymlink struct {
	DFID   uint32
	Name   []byte
	Target []byte
	GID    uint32
}

// Type implements Message.
func (*Tsymlink) Type() Type { return TypeTsymlink }

// Decode implements Message.
func (m *Tsymlink) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tsymlink) decode(d *decoder) {
	m.DFID = d.u32()
	m.Name = d.str()
	m.Target = d.str()
	m.GID = d.u32()
}

func (m *Tsymlink) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.DFID)
	b = appendStr(b, m.Name)
	b = appendStr(b, m.Target)
	return le.AppendUint32(b, m.GID)
}

// Tmknod is size[4] Tmknod tag[2] dfid[4] name[s] mode[4] major[4] minor[4] gid[4].
type Tmknod struct {
	DFID  uint32
	Name  []byte
	Mode  uint32
	Major uint32
	Minor uint32
	GID   uint32
}

// Type implements Message.
func (*Tmknod) Type() Type { return TypeTmknod }

// Decode implements Message.
func (m *Tmknod) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tmknod) decode(d *decoder) {
	m.DFID = d.u32()
	m.Name = d.str()
	m.Mode = d.u32()
	m.Major = d.u32()
	m.Minor = d.u32()
	m.GID = d.u32()
}

func (m *Tmknod) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.DFID)
	b = appendStr(b, m.Name)
	b = le.AppendUint32(b, m.Mode)
	b = le.AppendUint32(b, m.Major)
	b = le.AppendUint32(b, m.Minor)
	return le.AppendUint32(b, m.GID)
}

// Trename is size[4] Trename tag[2] fid[4] dfid[4] name[s].
type Trename struct {
	FID  uint32
	DFID uint32
	Name []byte
}

// Type implements Message.
func (*Trename) Type() Type { return TypeTrename }

// Decode implements Message.
func (m *Trename) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Trename) decode(d *decoder) {
	m.FID = d.u32()
	m.DFID = d.u32()
	m.Name = d.str()
}

func (m *Trename) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.FID)
	b = le.AppendUint32(b, m.DFID)
	return appendStr(b, m.Name)
}

// Tlink is size[4] Tlink tag[2] dfid[4] fid[4] name[s].
type Tlink struct {
	DFID uint32
	FID  uint32
	Name []byte
}

// Type implements Message.
func (*Tlink) Type() Type { return TypeTlink }

// Decode implements Message.
func (m *Tlink) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tlink) decode(d *decoder) {
	m.DFID = d.u32()
	m.FID = d.u32()
	m.Name = d.str()
}

func (m *Tlink) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.DFID)
	b = le.AppendUint32(b, m.FID)
	return appendStr(b, m.Name)
}

// Tmkdir is size[4] Tmkdir tag[2] dfid[4] name[s] mode[4] gid[4].
type Tmkdir struct {
	DFID uint32
	Name []byte
	Mode uint32
	GID  uint32
}

// Type implements Message.
func (*Tmkdir) Type() Type { return TypeTmkdir }

// Decode implements Message.
func (m *Tmkdir) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tmkdir) decode(d *decoder) {
	m.DFID = d.u32()
	m.Name = d.str()
	m.Mode = d.u32()
	m.GID = d.u32()
}

func (m *Tmkdir) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.DFID)
	b = appendStr(b, m.Name)
	b = le.AppendUint32(b, m.Mode)
	return le.AppendUint32(b, m.GID)
}

// Trenameat is size[4] Trenameat tag[2] olddirfid[4] oldname[s] newdirfid[4] newname[s].
type Trenameat struct {
	OldDirFID uint32
	OldName   []byte
	NewDirFID uint32
	NewName   []byte
}

// Type implements Message.
func (*Trenameat) Type() Type { return TypeTrenameat }

// Decode implements Message.
func (m *Trenameat) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Trenameat) decode(d *decoder) {
	m.OldDirFID = d.u32()
	m.OldName = d.str()
	m.NewDirFID = d.u32()
	m.NewName = d.str()
}

func (m *Trenameat) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.OldDirFID)
	b = appendStr(b, m.OldName)
	b = le.AppendUint32(b, m.NewDirFID)
	return appendStr(b, m.NewName)
}

// Tunlinkat is size[4] Tunlinkat tag[2] dirfd[4] name[s] flags[4].
type Tunlinkat struct {
	DirFID uint32
	Name   []byte
	Flags  uint32
}

// Type implements Message.
func (*Tunlinkat) Type() Type { return TypeTunlinkat }

// Decode implements Message.
func (m *Tunlinkat) Decode(body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	return d.end()
}

func (m *Tunlinkat) decode(d *decoder) {
	m.DirFID = d.u32()
	m.Name = d.str()
	m.Flags = d.u32()
}

func (m *Tunlinkat) appendBody(b []byte) []byte {
	b = le.AppendUint32(b, m.DirFID)
	b = appendStr(b, m.Name)
	return le.AppendUint32(b, m.Flags)
}
