// Package expected reads the tables in docs/ that say what other projects' tests do with lucid and with runc.
package expected

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Row is what a test is expected to do.
type Row struct {
	Lucid, Runc string // verdicts
	Why         string // it does not pass with lucid
}

// Of is the verdict with a runtime, lucid or runc.
func (r Row) Of(runtime string) string {
	if runtime == "lucid" {
		return r.Lucid
	}
	return r.Runc
}

// Table reads the lines that begin with prefix. line's groups are the test's name and the fields of Row; verdicts are those
// that there are, the first of them "passes".
func Table(text, prefix string, line *regexp.Regexp, verdicts ...string) (map[string]Row, error) {
	list := map[string]Row{}
	for l := range strings.Lines(text) {
		if !strings.HasPrefix(l, prefix) {
			continue
		}
		m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			return nil, fmt.Errorf("not a line of the table: %s", l)
		}
		r := Row{m[2], m[3], strings.TrimSpace(m[4])}
		for _, v := range []string{r.Lucid, r.Runc} {
			if !slices.Contains(verdicts, v) {
				return nil, fmt.Errorf("%s: %q is no verdict", m[1], v)
			}
		}
		if _, twice := list[m[1]]; twice {
			return nil, fmt.Errorf("%s stands there twice", m[1])
		}
		if r.Lucid != verdicts[0] && r.Why == "" {
			return nil, fmt.Errorf("%s: no reason why it does not pass", m[1])
		}
		list[m[1]] = r
	}
	return list, nil
}
