package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"outlast/checkpoint"
)

// What is told of a damaged result does not depend on how much of its manifest
// can be read.
func TestADamagedResultIsCalledOne(t *testing.T) {
	for name, spoil := range map[string]func(final string) error{
		"its manifest": func(final string) error {
			return os.WriteFile(filepath.Join(final, checkpoint.ManifestName), []byte("{"), 0o644)
		},
		"its content": func(final string) error { return os.Remove(filepath.Join(final, "model.pt")) },
	} {
		t.Run(name, func(t *testing.T) {
			v := &vault{keeper: &checkpoint.Keeper{Dir: filepath.Join(t.TempDir(), "digits"), Keep: 1, Log: slog.New(slog.DiscardHandler)}, run: "digits"}
			staged := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(staged, "model.pt"), []byte("weights"), 0o644))
			m := checkpoint.Manifest{Run: "digits", Model: "cnn", Fingerprint: "f", Step: 40, Generation: 1, Writer: "w"}
			_, _, err := v.keeper.Save(t.Context(), m, staged)
			require.NoError(t, err)
			_, final, err := v.keeper.Finish(t.Context(), m)
			require.NoError(t, err)
			require.NoError(t, spoil(final))
			found, notes, err := v.Final(t.Context(), "cnn", "f")
			require.NoError(t, err)
			require.Empty(t, found.Path)
			require.Len(t, notes, 1)
			require.Regexp(t, `^cnn: the finished model is damaged \(.+\) and is not used; it was put aside as final\.damaged\.$`, notes[0])
		})
	}
}
