module taskgate.dev/e2e/gotemplate

go 1.26.0
