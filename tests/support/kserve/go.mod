// KServe's CRDs, for the test that its API accepts what a promotion writes. Nothing of it is compiled.
module bessemer.dev/tests/kserve

go 1.24

require github.com/kserve/kserve v0.15.2
