// Command gotemplate renders templates with the real text/template, for comparison.
//
// It reads {"contexts": [any], "templates": [string]} and writes, for each template, a list with one entry per context:
// the output in base64, or null where parsing or executing it fails. Numbers of the contexts become int where they are
// integers and float64 otherwise.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"text/template"
)

type input struct {
	Contexts  []any    `json:"contexts"`
	Templates []string `json:"templates"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gotemplate:", err)
		os.Exit(1)
	}
}

func run() error {
	decoder := json.NewDecoder(os.Stdin)
	decoder.UseNumber()
	var in input
	if err := decoder.Decode(&in); err != nil {
		return err
	}
	results := make([][]*[]byte, len(in.Templates))
	for i, source := range in.Templates {
		results[i] = make([]*[]byte, len(in.Contexts))
		parsed, err := template.New("root").Parse(source)
		if err != nil {
			continue
		}
		for j, context := range in.Contexts {
			var output bytes.Buffer
			if parsed.Execute(&output, numbers(context)) == nil {
				text := output.Bytes()
				if text == nil {
					text = []byte{}
				}
				results[i][j] = &text
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// numbers gives value with Go's own types for numbers, and lists without room to grow.
func numbers(value any) any {
	switch value := value.(type) {
	case json.Number:
		if number, err := value.Int64(); err == nil {
			return int(number)
		}
		number, _ := value.Float64()
		return number
	case []any:
		list := make([]any, len(value))
		for i, item := range value {
			list[i] = numbers(item)
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(value))
		for key, item := range value {
			object[key] = numbers(item)
		}
		return object
	default:
		return value
	}
}
