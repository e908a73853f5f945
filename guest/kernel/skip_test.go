package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSkips(t *testing.T) {
	got, err := parseSkips("# head\n\nblake2s_mod_init  # self test\n_f2 # why: #1\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Skip{{"blake2s_mod_init", "self test"}, {"_f2", "why: #1"}}, got); diff != "" {
		t.Errorf("skips (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"f\n", "f #\n", "f # a\nf # b\n", "two words # why\n"} {
		if _, err := parseSkips(bad); !errors.Is(err, ErrFragment) {
			t.Errorf("parseSkips(%q): %v, want ErrFragment", bad, err)
		}
	}
	if skips, err := Skips(); err != nil || len(skips) == 0 {
		t.Errorf("the built-in list: %v, %v", skips, err)
	}
}

// TestSkipFunctions patches a real program and runs it.
func TestSkipFunctions(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "a.c")
	program := filepath.Join(dir, "a")
	text := "__attribute__((noinline)) static int seven(void) { __asm__ volatile(\"\"); return 7; }\n" +
		"__attribute__((noinline)) int eight(void) { __asm__ volatile(\"\"); return 8; }\n" +
		"int main(void) { return seven() + eight(); }\n"
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-O1", "-o", program, source).CombinedOutput(); err != nil {
		t.Skipf("%v: %s; try: apt-get install gcc libc6-dev", err, out)
	}
	before, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := skipFunctions(program, []Skip{{Name: "seven"}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := exec.Command(program).Run(); !errors.As(err, &exit) || exit.ExitCode() != 8 {
		t.Errorf("after skipping seven(): %v, want exit status 8", err)
	}
	for _, name := range []string{"nine", "a.c"} { // missing, not a function
		err := skipFunctions(program, []Skip{{Name: "eight"}, {Name: name}})
		if err == nil {
			t.Errorf("skipping %q succeeded", name)
		}
	}
	after, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if diff := len(before) - len(after); diff != 0 {
		t.Errorf("size changed by %d", diff)
	}
	f, err := elf.NewFile(bytes.NewReader(after))
	if err != nil {
		t.Fatal(err)
	}
	text8, err := f.Section(".text").Data()
	if err != nil || bytes.Count(text8, returnZero) == 0 {
		t.Errorf("no %x in the code, %v", returnZero, err)
	}
}
