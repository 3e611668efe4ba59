// Package middleway is the root of the module and holds no code. Its test, layout_test.go, enforces the rules that keep the
// architecture readable from the folder list: which package may import which, what a package may be called, how it is documented.
package middleway
