package chromium

import (
	"errors"
	"fmt"

	"github.com/evanw/esbuild/pkg/api"
)

// Bundle makes one script of a module and all that it imports, as browsers would have it.
func Bundle(file string) ([]byte, error) {
	result := api.Build(api.BuildOptions{
		EntryPoints:      []string{file},
		Bundle:           true,
		Platform:         api.PlatformBrowser,
		Format:           api.FormatIIFE,
		Target:           api.ES2022,
		MinifyWhitespace: true,
		MinifySyntax:     true, // but not names: they are in stack traces
		LegalComments:    api.LegalCommentsNone,
		Define:           map[string]string{"process.env.NODE_ENV": `"production"`},
		LogLevel:         api.LogLevelSilent,
		Write:            false,
	})
	var errs []error
	for _, m := range result.Errors {
		if m.Location != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %s", m.Location.File, m.Location.Line, m.Text))
		} else {
			errs = append(errs, errors.New(m.Text))
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("bundle %s: %w", file, errors.Join(errs...))
	}
	return result.OutputFiles[0].Contents, nil
}
