module attestry.invalid/independent

go 1.25.0

require golang.org/x/mod v0.0.0
