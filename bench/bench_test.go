package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMannWhitney has values of published tables and of R's wilcox.test.
func TestMannWhitney(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b []float64
		want float64
	}{
		{"apart, 4 and 4", []float64{1, 2, 3, 4}, []float64{5, 6, 7, 8}, 2.0 / 70},
		{"apart, the other way", []float64{5, 6, 7, 8}, []float64{1, 2, 3, 4}, 2.0 / 70},
		{"apart, 3 and 3", []float64{1, 2, 3}, []float64{4, 5, 6}, 2.0 / 20},
		{"mixed", []float64{1, 3, 5, 7}, []float64{2, 4, 6, 8}, 0.6857142857},
		{"U=4 of 5 and 5", []float64{1, 2, 3, 4, 9}, []float64{5, 6, 7, 8, 10}, 0.0952380952},
		{"the same", []float64{1, 1, 1, 1}, []float64{1, 1, 1, 1}, 1},
		{"nothing", nil, []float64{1}, 1},
	} {
		if got := MannWhitney(c.a, c.b); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	// The approximation, with ties, on samples that are clearly apart and clearly not.
	var low, high []float64
	for i := range 30 {
		low, high = append(low, float64(i%10)), append(high, float64(i%10+8))
	}
	if p := MannWhitney(low, high); p > 1e-6 {
		t.Errorf("samples apart: p=%v", p)
	}
	if p := MannWhitney(low, low); p < 0.9 {
		t.Errorf("a sample and itself: p=%v", p)
	}
}

func TestQuantiles(t *testing.T) {
	v := []float64{9, 1, 8, 2, 7, 3, 6, 4, 5, 10}
	if Median(v) != 5.5 || Quantile(v, 0.9) != 9 || Quantile(v, 0) != 1 || Quantile(v, 1) != 10 {
		t.Errorf("median %v, p90 %v, min %v, max %v", Median(v), Quantile(v, 0.9), Quantile(v, 0), Quantile(v, 1))
	}
	if !math.IsNaN(Median(nil)) || !math.IsNaN(Quantile(nil, 0.5)) {
		t.Error("no values must be NaN")
	}
}

func TestCompare(t *testing.T) {
	r := func(metric, unit string, better Better, values ...float64) Result {
		return Result{Case: "c", Subject: "s", Metric: metric, Unit: unit, Better: better, Values: values}
	}
	a := []Result{
		r("slower", "ms", Less, 1, 2, 3, 4), r("faster", "MB/s", More, 1, 2, 3, 4), r("few", "ms", Less, 1),
		r("exact", "instructions", Less, 100), r("equal", "bytes", Less, 7), r("gone", "ms", Less, 1),
	}
	b := []Result{
		r("slower", "ms", Less, 11, 12, 13, 14), r("faster", "MB/s", More, 11, 12, 13, 14), r("few", "ms", Less, 2),
		r("exact", "instructions", Less, 90), r("equal", "bytes", Less, 7), r("new", "ms", Less, 1),
	}
	var got []string
	for _, d := range Compare(a, b) {
		word, _, _ := strings.Cut(d.Why, ":")
		got = append(got, d.Metric+" "+word)
	}
	want := []string{"slower worse", "faster better", "few no real difference", "exact better", "equal no real difference"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestReadWrite(t *testing.T) {
	run := MachineRun{
		Machine: Machine{Date: time.Unix(1e9, 0).UTC(), CPU: "a CPU", CPUs: 2},
		Results: []Result{
			{Case: "start", Subject: "lucid", Metric: "m", Unit: "ms", Better: Less, Values: []float64{1, 2.5}},
			{Case: "start", Subject: "runsc", Skipped: "not installed"},
		},
	}
	var b bytes.Buffer
	if err := errors.Join(Write(&b, run), Write(&b, run)); err != nil {
		t.Fatal(err)
	}
	got, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Runs{run, run}, got); diff != "" {
		t.Errorf("(-wrote +read):\n%s", diff)
	}
	for _, bad := range []string{"", "not json\n", `{"case":"x","subject":"y"}` + "\n", `{"machine":{}}` + "\n{}\n"} {
		if _, err := Read(strings.NewReader(bad)); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: error %v, want ErrFormat", bad, err)
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	err := Table(&b, []Result{
		{Case: "start", Subject: "lucid", Metric: "first byte", Unit: "ms", Values: []float64{12345, 1, 2}},
		{Case: "start", Subject: "runsc", Skipped: "it is not installed"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first byte", "12\u202f345", "skipped: start, runsc: it is not installed"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

func TestUnknownCase(t *testing.T) {
	if err := CheckCases([]string{"boot", "nonsense"}); !errors.Is(err, ErrCase) || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("error %v", err)
	}
}

// TestFileWorker runs what runs in containers, here.
func TestFileWorker(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{forSequential, forRandom} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, bigFile), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeArchive(filepath.Join(dir, archiveName)); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(dir, repoName)
	if out, err := exec.Command("git", "init", "--quiet", repo).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	var out bytes.Buffer
	if err := Worker([]string{"files", dir, repo, "1s"}, nil, &out); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 11 {
		t.Errorf("%d results, want 11:\n%s", n, &out)
	}
	for _, r := range decodeResults(t, &out) {
		if len(r.Values) != 1 || r.Values[0] <= 0 || r.Better != More {
			t.Errorf("%+v", r)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "many")); err != nil || len(left) > 0 {
		t.Errorf("%d small files are left, %v", len(left), err)
	}
	if err := Worker([]string{"nonsense"}, nil, io.Discard); err == nil {
		t.Error("an unknown job must be an error")
	}
}

func decodeResults(t *testing.T, r io.Reader) (list []Result) {
	t.Helper()
	for dec := json.NewDecoder(r); dec.More(); {
		var r Result
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// TestFileTestEnds: a test ends at its budget, after one operation at least, and counts what it did.
func TestFileTestEnds(t *testing.T) {
	slow := fileTest{n: 1000, each: 2, op: func(int) error { time.Sleep(10 * time.Millisecond); return nil }}
	begin := time.Now()
	done, rate, err := slow.run(30 * time.Millisecond)
	if took := time.Since(begin).Seconds(); err != nil || done == 0 || done == 1000 || rate < float64(done)*2/took {
		t.Errorf("%d done at %v per second in %v s, %v", done, rate, took, err)
	}
	if done, _, err := slow.run(0); done != 1 || err != nil {
		t.Errorf("without a budget: %d, %v", done, err)
	}
	bad := fileTest{n: 3, op: func(int) error { return io.ErrNoProgress }}
	if _, _, err := bad.run(time.Second); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v", err)
	}
}

// TestLimit: a case begins no round after its share, one that does not look is cut off at the limit, and what comes after it is not
// begun. What was measured is handed over all the same, and nothing of it is an error.
func TestLimit(t *testing.T) {
	w := &World{Config: Config{Limit: 300 * time.Millisecond, Progress: io.Discard}}
	rounds := 0
	list := []Case{
		{Name: "long", run: func(_ context.Context, w *World) ([]Result, error) {
			for i := 0; i < 1e6 && !w.clock.enough(i); i++ {
				rounds++
				time.Sleep(5 * time.Millisecond)
			}
			return []Result{{Subject: "lucid", Metric: "m", Values: []float64{1}}}, nil
		}},
		{Name: "stuck", run: func(ctx context.Context, _ *World) ([]Result, error) {
			<-ctx.Done()
			return []Result{{Subject: "lucid", Metric: "m", Values: []float64{2}}}, ctx.Err()
		}},
		{Name: "late", run: func(context.Context, *World) ([]Result, error) {
			t.Error("it was begun")
			return nil, nil
		}},
	}
	var got []string
	err := runCases(t.Context(), w, list, func(results []Result) error {
		for _, r := range results {
			got = append(got, strings.TrimSpace(r.Case+" "+r.Metric+r.Skipped))
		}
		return nil
	})
	const over = "the limit of 300ms for all cases was reached"
	if diff := cmp.Diff([]string{"long m", "stuck m", "stuck " + over, "late " + over}, got); diff != "" || err != nil {
		t.Errorf("%v, results (-want +got):\n%s", err, diff)
	}
	if rounds < 2 || rounds > 25 {
		t.Errorf("%d rounds of 5 ms in a share of 100 ms", rounds)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runCases(ctx, w, list[1:2], func([]Result) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestFailedCase: a case that fails is said on the page and does not keep the others from running; a host that is too slow is no failure.
func TestFailedCase(t *testing.T) {
	w := &World{Config: Config{Progress: io.Discard}}
	list := []Case{
		{Name: "bad", run: func(context.Context, *World) ([]Result, error) { return nil, io.ErrNoProgress }},
		{Name: "slow", run: func(context.Context, *World) ([]Result, error) { return nil, fmt.Errorf("lucid: %w", errSlow) }},
		{Name: "good", run: func(context.Context, *World) ([]Result, error) { return []Result{{Subject: "lucid"}}, nil }},
	}
	var got []string
	err := runCases(t.Context(), w, list, func(results []Result) error {
		for _, r := range results {
			got = append(got, r.Case+": "+r.Skipped)
		}
		return nil
	})
	want := []string{"bad: " + io.ErrNoProgress.Error(), "slow: lucid: on this host a container does not end in 5m0s", "good: "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !errors.Is(err, io.ErrNoProgress) || errors.Is(err, errSlow) {
		t.Errorf("error %v", err)
	}
}

// TestStreams connects the host's ends to a worker without a container between.
func TestStreams(t *testing.T) {
	p := newPinger(roundTrips)
	if err := Worker([]string{"echo"}, p, p); err != nil || len(p.took) != roundTrips {
		t.Errorf("echo: %d round trips, want %d; %v", len(p.took), roundTrips, err)
	}
	src := source{left: 1 << 20, ready: make(chan struct{})}
	if err := Worker([]string{"drain"}, &src, &src); err != nil || src.left != 0 || !src.last.After(src.first) {
		t.Errorf("drain: %d bytes left, %v", src.left, err)
	}
	var f flow
	if err := Worker([]string{"pour"}, nil, &f); err != nil || f.n != pourBytes {
		t.Errorf("pour: %d bytes, %v", f.n, err)
	}
}

// TestP9 drives both servers once.
func TestP9(t *testing.T) {
	w, err := NewWorld(Config{Runs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	results, err := p9Cases(context.Background(), w)
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(p9Jobs); len(results) != want {
		t.Errorf("%d results, want %d", len(results), want)
	}
}

func TestCheck(t *testing.T) {
	limits, err := parseLimits("# a note\n\nboot\tlong\t1 000 000\tinstructions\nsizes\tlucid\t100\tbytes\nsizes\tgone\t1\tbytes\nboot\texits\t5\texits\n")
	if err != nil {
		t.Fatal(err)
	}
	r := func(c, m, unit string, v float64) Result {
		return Result{Case: c, Subject: "lucid", Metric: m, Unit: unit, Values: []float64{v}}
	}
	results := []Result{r("boot", "long", "instructions", 1_020_001), r("sizes", "lucid", "bytes", 97), {Case: "boot", Subject: "x", Skipped: "no KVM"}}
	complaints, news := Check(results, limits)
	if len(complaints) != 2 || !strings.Contains(complaints[0], "long") || !strings.Contains(complaints[1], "gone") {
		t.Errorf("complaints %q: want the boot that is too long and the size that is missing", complaints)
	}
	if len(news) != 1 || !strings.Contains(news[0], "lucid") {
		t.Errorf("news %q", news)
	}
	results[0].Values[0] = 1_020_000
	if complaints, _ := Check(results, limits); len(complaints) != 1 {
		t.Errorf("2 %% more must pass: %q", complaints)
	}
	for _, bad := range []string{"a b c d", "a\tb\tx\tbytes", "a\tb\t1\tms", "a\tb\t-1\tbytes"} {
		if _, err := parseLimits(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	for _, unit := range []string{"instructions", "exits", "bytes"} {
		if list, err := Limits(unit); err != nil || len(list) == 0 || list[0].Unit != unit {
			t.Errorf("%s: the list built in has %d limits, %v", unit, len(list), err)
		}
	}
}

// TestInTurns: all are done, no more than so many at a time, and a failure is the last to begin.
func TestInTurns(t *testing.T) {
	var now, most, done atomic.Int64
	err := inTurns(50, 4, func(int) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
		done.Add(1)
		return nil
	})
	if err != nil || done.Load() != 50 || most.Load() > 4 || most.Load() < 2 {
		t.Errorf("%d done, %d at a time, %v", done.Load(), most.Load(), err)
	}
	done.Store(0)
	bad := errors.New("bad")
	err = inTurns(1000, 4, func(i int) error {
		done.Add(1)
		if i == 10 {
			return bad
		}
		return nil
	})
	if !errors.Is(err, bad) || done.Load() > 100 {
		t.Errorf("%d done, %v", done.Load(), err)
	}
}

// TestInRound: each subject begins once in as many rounds as there are, and none is left out.
func TestInRound(t *testing.T) {
	list := []string{"a", "b", "c"}
	var got []string
	for i := range 4 {
		got = append(got, strings.Join(inRound(i, list), ""))
	}
	if want := []string{"abc", "bca", "cab", "abc"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if all := inRound(3, []string{}); len(all) != 0 {
		t.Errorf("%v of nothing", all)
	}
}

func TestInGuest(t *testing.T) {
	for call, want := range map[string]bool{
		"16 0x23 0xae80 0x0 0x0 0x0 0x0 0x34769c18f748 0x40d00e\n":      true,
		"16 0x23 0xae80 0x0 0x0 0x0 0x0 0x0 0x0\n":                      false,
		"16 0x23 0xae81 0x0 0x0 0x0 0x0 0x34769c18f748 0x40d00e\n":      false,
		"202 0xc794b8 0xae80 0x0 0x0 0x0 0x0 0x7ffde50f13d8 0x492523\n": false,
		"running\n": false,
		"":          false,
	} {
		if got := inGuest(call); got != want {
			t.Errorf("%q: %v", call, got)
		}
	}
}
