//go:build race

package checkpoint_test

// raced says that everything takes several times as long.
const raced = true
