//go:build !linux

package main

import "errors"

func inDeadNetwork(func() error) error {
	return errors.New("dial-dead needs the network namespaces of Linux")
}
