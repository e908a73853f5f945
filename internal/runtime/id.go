package runtime

// maxID is what fits into a directory entry with room for nothing more
// (NAME_MAX of linux/limits.h).
const maxID = 255

// checkID accepts what runc accepts: letters, digits and "_+-." that form a
// file name.
func checkID(id string) error {
	if id == "" {
		return ErrEmptyID
	}
	if id == "." || id == ".." || len(id) > maxID {
		return ErrInvalidID
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '_', c == '+', c == '-', c == '.':
		default:
			return ErrInvalidID
		}
	}
	return nil
}
