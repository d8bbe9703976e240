package magics

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"outlast/training"
)

// A direction says which way a metric gets better.
type direction int

const (
	unknown direction = iota
	higher
	lower
)

// directionOf goes by the names that the field gives to metrics, as words of
// their own: "val_acc" and "top1 accuracy", but not "accumulation".
func directionOf(metric string) direction {
	words := wordsOf(metric)
	has := func(names string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(strings.Fields(names), w) })
	}
	switch {
	case has("loss error err rmse mse mae perplexity ppl wer cer nll bpc bpb"):
		return lower
	case has("acc accuracy f1 auc auroc bleu rouge r2 precision recall map iou dice score reward top correct"):
		return higher
	}
	return unknown
}

var (
	hump    = regexp.MustCompile(`([a-z0-9])([A-Z])`)
	nonWord = regexp.MustCompile(`[^a-z0-9]+`)
	digits  = regexp.MustCompile(`^([a-z]{3,})\d+$`) // top5, rouge1; not f1 and r2
)

// wordsOf splits a name such as val_loss, valLoss or "eval/top1".
func wordsOf(metric string) []string {
	metric = strings.ToLower(hump.ReplaceAllString(metric, "${1}_$2"))
	words := nonWord.Split(metric, -1)
	for i, w := range words {
		words[i] = digits.ReplaceAllString(w, "$1")
	}
	return words
}

// rankOf says how well a metric serves to compare models, the lowest the best:
// a score before a loss, and what was measured on other data than that trained
// on before what was not.
func rankOf(metric string) int {
	words := wordsOf(metric)
	training := slices.Contains(words, "train") || slices.Contains(words, "training")
	held := slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains([]string{"val", "valid", "validation", "test", "eval", "dev", "heldout"}, w)
	})
	rank := 0
	switch directionOf(metric) {
	case higher:
	case lower:
		rank = 2
	case unknown:
		rank = 8
	}
	switch {
	case training:
		rank += 4
	case !held:
		rank++
	}
	return rank
}

// metricNames returns the metrics of all models, those that compare best first.
func metricNames(r training.Results) []string {
	seen := map[string]bool{}
	for _, m := range r.Models {
		for n := range m.Metrics {
			seen[n] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b string) int {
		return cmp.Or(cmp.Compare(rankOf(a), rankOf(b)), strings.Compare(a, b))
	})
}

// judge returns the metric by which models are compared; empty if none says what
// better is.
func judge(r training.Results) string {
	for _, n := range metricNames(r) {
		if directionOf(n) != unknown && slices.ContainsFunc(r.Models, func(m training.ModelResult) bool { return figured(m, n) }) {
			return n
		}
	}
	return ""
}

func figured(m training.ModelResult, metric string) bool {
	v, ok := m.Metrics[metric].(float64)
	return ok && finite(v)
}

// ranked orders models by a metric: those that are done first, and of them the
// best. Without a metric the order is the plan's.
func ranked(models []training.ModelResult, metric string) []training.ModelResult {
	if metric == "" {
		return models
	}
	sign := 1.0
	if directionOf(metric) == higher {
		sign = -1
	}
	key := func(m training.ModelResult) (class int, value float64) {
		if !figured(m, metric) {
			return 2, 0
		}
		if m.State != training.ModelDone {
			class = 1
		}
		return class, sign * m.Metrics[metric].(float64)
	}
	return slices.SortedStableFunc(slices.Values(models), func(a, b training.ModelResult) int {
		classA, a1 := key(a)
		classB, b1 := key(b)
		return cmp.Or(cmp.Compare(classA, classB), cmp.Compare(a1, b1))
	})
}
