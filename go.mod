module github.com/lucid-containers/lucid

go 1.26
