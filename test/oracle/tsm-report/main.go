// SPDX-License-Identifier: Apache-2.0

// A program on go-configfs-tsm, as attestation agents are: it knows nothing of softsnp.
//
//	tsm-report get NONCE.HEX OUTBLOB AUXBLOB   one report with certificates
//	tsm-report parallel COUNT                  so many at once, each over data of its own
//	tsm-report rules                           generations, privilege levels and refusals
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"
)

const reportSize = 1184
const reportDataAt = 0x50

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tsm-report:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	client, err := linuxtsm.MakeClient()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 4 && args[0] == "get":
		return get(client, args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "parallel":
		return parallel(client, args[1])
	case len(args) == 1 && args[0] == "rules":
		return rules(client)
	}
	return errors.New("usage: tsm-report get NONCE.HEX OUTBLOB AUXBLOB | parallel COUNT | rules")
}

func request(data []byte) *report.Request {
	return &report.Request{InBlob: data, GetAuxBlob: true, Privilege: &report.Privilege{Level: 0}}
}

// ask gets a report and checks that it is one over the data.
func ask(client configfsi.Client, data []byte) (*report.Response, error) {
	response, err := report.Get(client, request(data))
	if err != nil {
		return nil, err
	}
	if response.Provider != "sev_guest\n" {
		return nil, fmt.Errorf("the provider is %q", response.Provider)
	}
	if len(response.OutBlob) != reportSize {
		return nil, fmt.Errorf("outblob has %d bytes", len(response.OutBlob))
	}
	if !bytes.Equal(response.OutBlob[reportDataAt:reportDataAt+64], data) {
		return nil, errors.New("the report is over other data")
	}
	return response, nil
}

func get(client configfsi.Client, nonceFile, outblob, auxblob string) error {
	text, err := os.ReadFile(nonceFile)
	if err != nil {
		return err
	}
	nonce, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	response, err := ask(client, nonce)
	if err != nil {
		return err
	}
	if err := os.WriteFile(outblob, response.OutBlob, 0o644); err != nil {
		return err
	}
	return os.WriteFile(auxblob, response.AuxBlob, 0o644)
}

func parallel(client configfsi.Client, text string) error {
	count, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	failures := make([]error, count)
	var all sync.WaitGroup
	for i := range failures {
		all.Add(1)
		go func() {
			defer all.Done()
			data := make([]byte, 64)
			if _, failures[i] = rand.Read(data); failures[i] == nil {
				_, failures[i] = ask(client, data)
			}
		}()
	}
	all.Wait()
	return errors.Join(failures...)
}

func rules(client configfsi.Client) error {
	entry, err := client.MkdirTemp(configfsi.TsmPrefix+"/report", "entry")
	if err != nil {
		return err
	}
	mine, err := report.UnsafeWrap(client, entry)
	if err != nil {
		return err
	}
	mine.InBlob = make([]byte, 64)
	floor, err := mine.PrivilegeLevelFloor()
	if err != nil || floor != 0 {
		return fmt.Errorf("privlevel_floor: %d, %v", floor, err)
	}
	if err := mine.WriteOption("privlevel", []byte("4")); !strings.Contains(fmt.Sprint(err), syscall.EINVAL.Error()) {
		return fmt.Errorf("privlevel 4: %v", err)
	}
	if _, err := mine.ReadOption("outblob"); !strings.Contains(fmt.Sprint(err), syscall.EINVAL.Error()) {
		return fmt.Errorf("outblob before inblob: %v", err)
	}
	if _, err := mine.Get(); err != nil {
		return err
	}
	// Somebody else writes to the entry: what is read from now on must not be taken for an answer.
	other, err := report.UnsafeWrap(client, entry)
	if err != nil {
		return err
	}
	if err := other.WriteOption("inblob", bytes.Repeat([]byte{1}, 64)); err != nil {
		return err
	}
	if _, err := mine.ReadOption("outblob"); report.GetGenerationErr(err) == nil {
		return fmt.Errorf("a write by somebody else: %v", err)
	}
	if err := mine.Destroy(); err != nil {
		return err
	}
	if _, err := other.ReadOption("outblob"); !strings.Contains(fmt.Sprint(err), syscall.ENOENT.Error()) {
		return fmt.Errorf("after rmdir: %v", err)
	}
	return nil
}
