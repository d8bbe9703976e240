package magics

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// span writes a duration for people: 4.2 s, 42 s, 3 min 20 s, 2 h 05 min, 3 d 4 h.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	switch {
	case seconds < 9.95:
		return fmt.Sprintf("%.1f s", max(seconds, 0))
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// pace writes the time of one step: 85 µs, 12 ms, 1.5 s, 2 min 05 s.
func pace(seconds float64) string {
	switch {
	case seconds < 0.001:
		return fmt.Sprintf("%.0f µs", seconds*1e6)
	case seconds < 0.01:
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	case seconds < 1:
		return fmt.Sprintf("%.0f ms", seconds*1e3)
	}
	return span(seconds)
}

// mebibytes writes an amount of memory, given in MiB.
func mebibytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d MiB", n)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/1024)
}

// fileSize writes how large a file is, as file managers do.
func fileSize(n int64) string {
	size, unit := float64(n), "bytes"
	for _, larger := range []string{"kB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, larger
	}
	if unit == "bytes" || size >= 100 {
		return fmt.Sprintf("%.0f %s", size, unit)
	}
	return fmt.Sprintf("%.1f %s", size, unit)
}

// number3 writes a measured value with four significant digits, and a whole one
// with all of them.
func number3(v any) string {
	f, ok := v.(float64)
	switch {
	case v == nil:
		return ""
	case !ok:
		return fmt.Sprint(v)
	case f == math.Trunc(f) && math.Abs(f) < 1e15:
		return grouped(strconv.FormatFloat(f, 'f', 0, 64))
	}
	return fmt.Sprintf("%.4g", f)
}

// grouped sets commas into a whole number of five digits or more.
func grouped(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	if len(digits) < 5 {
		return sign + digits
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
