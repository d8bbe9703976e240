package magics

// Golden is golden, for tests outside the package: the flag that rewrites the
// files exists once.
var Golden = golden
