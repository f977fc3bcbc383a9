// SPDX-License-Identifier: Apache-2.0

// go-verify says how many times a second go-sev-guest verifies one attestation inside a process that is warm.
//
// Each verification starts from the bytes: report and table are decoded, the chain is verified to the given root
// with its certificates parsed anew, and the report's signature is checked. No revocation list, no network, no policy.
//
// Usage: go-verify ATTESTATION BUNDLE SECONDS
// ATTESTATION is a report with its certificate table behind it, BUNDLE the ASK and ARK in PEM. Prints JSON: per_s of
// one goroutine, and workers_per_s of one for each core at once.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 4 {
		return fmt.Errorf("usage: go-verify ATTESTATION BUNDLE SECONDS")
	}
	evidence, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	bundle, err := os.ReadFile(os.Args[2])
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(os.Args[3], 64)
	if err != nil {
		return err
	}
	length := time.Duration(seconds * float64(time.Second))
	verifyOnce := func() error { return verifyEvidence(evidence, bundle) }
	// As the benchmarks beside this one, what comes first is not counted.
	if _, err := rate(1, length/4, verifyOnce); err != nil {
		return err
	}
	alone, err := rate(1, length, verifyOnce)
	if err != nil {
		return err
	}
	together, err := rate(runtime.NumCPU(), length, verifyOnce)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{"per_s": alone, "workers_per_s": together})
}

func verifyEvidence(evidence, bundle []byte) error {
	attestation, err := abi.ReportCertsToProto(evidence)
	if err != nil {
		return err
	}
	root := &trust.AMDRootCerts{ProductLine: "Milan"}
	if err := root.FromKDSCertBytes(bundle); err != nil {
		return err
	}
	return verify.SnpAttestation(attestation, &verify.Options{
		DisableCertFetching: true,
		TrustedRoots:        map[string][]*trust.AMDRootCerts{"Milan": {root}},
	})
}

// rate runs work in as many goroutines for that long and says how often a second it was done in all.
func rate(workers int, length time.Duration, work func() error) (float64, error) {
	counts := make([]int, workers)
	errs := make([]error, workers)
	start := time.Now()
	var group sync.WaitGroup
	for i := range counts {
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Since(start) < length && errs[i] == nil {
				errs[i] = work()
				counts[i]++
			}
		}()
	}
	group.Wait()
	elapsed := time.Since(start).Seconds()
	total := 0
	for i, count := range counts {
		if errs[i] != nil {
			return 0, errs[i]
		}
		total += count
	}
	return float64(total) / elapsed, nil
}
