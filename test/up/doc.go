// Package up tests the playground as its users run it: the built program, from outside, on this machine.
package up
