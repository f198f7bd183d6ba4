package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	secret, _ := os.ReadFile("secret")
	lines, _ := os.ReadFile("headers")
	body, _ := os.ReadFile("body")
	headers := http.Header{}
	for _, line := range strings.Split(strings.TrimSpace(string(lines)), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		headers.Set(name, value)
	}
	if err := receive(string(secret), headers, body); err != nil {
		fmt.Println("refused:", err)
	} else {
		fmt.Println("accepted")
	}
}
