// A peer on webtransport-go for the interop matrix; tests/interop/matrix/rows.py describes the scripts.
//
//	peer client <url> <sha-256 of the certificate> <certificate file>
//	peer server <certificate and key file> <port>
//
// The client prints its report as one line of JSON. The server prints {"port": ...}, then a report for each session
// that is over, and ends with its standard input.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/quic-go/webtransport-go"
)

type report map[string]any

// script is a path taken apart: the name of the row and its parameters.
type script struct {
	name       string
	path       string
	parameters url.Values
}

func scriptOf(target *url.URL) script {
	return script{strings.Trim(target.Path, "/"), target.RequestURI(), target.Query()}
}

func (s script) number(name string) uint64 {
	return must(strconv.ParseUint(s.parameters.Get(name), 10, 64))
}

func (s script) codes() []webtransport.StreamErrorCode {
	var codes []webtransport.StreamErrorCode
	for _, text := range strings.Split(s.parameters.Get("codes"), ",") {
		codes = append(codes, webtransport.StreamErrorCode(must(strconv.ParseUint(text, 10, 32))))
	}
	return codes
}

// failure ends a script; main and the server turn it into a report.
type failure struct{ error }

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// caught runs a script and turns a failure into a report.
func caught(run func() report) (result report) {
	defer func() {
		if reason := recover(); reason != nil {
			failed, ok := reason.(failure)
			if !ok {
				panic(reason)
			}
			result = report{"error": failed.Error()}
		}
	}()
	return run()
}

var output sync.Mutex

func printLine(line report) {
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(must(json.Marshal(line))))
}

func ask(stream *webtransport.Stream, question string) string {
	must(io.WriteString(stream, question))
	check(stream.Close())
	return string(must(io.ReadAll(stream)))
}

func answer(stream *webtransport.Stream) string {
	question := string(must(io.ReadAll(stream)))
	must(io.WriteString(stream, strings.ToUpper(question)))
	check(stream.Close())
	return question
}

func readLine(stream *webtransport.Stream) string {
	var line []byte
	letter := make([]byte, 1)
	for {
		must(io.ReadFull(stream, letter))
		if letter[0] == '\n' {
			return string(line)
		}
		line = append(line, letter[0])
	}
}

// codeOfReset reads until the other side resets the stream.
func codeOfReset(stream *webtransport.Stream) any {
	_, err := io.Copy(io.Discard, stream)
	return codeOf(err)
}

// codeOfStop waits until the other side stops the stream: the context of a stream ends with its sending half.
func codeOfStop(stream *webtransport.Stream) any {
	<-stream.Context().Done()
	_, err := stream.Write([]byte("x"))
	return codeOf(err)
}

func codeOf(err error) any {
	var reset *webtransport.StreamError
	if errors.As(err, &reset) && reset.Remote {
		return reset.ErrorCode
	}
	return fmt.Sprint(err)
}

func bulkData(size uint64) []byte {
	data := make([]byte, size)
	for index := range data {
		data[index] = byte(index % 251)
	}
	return data
}

func main() {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "client":
		printLine(caught(func() report { return runClient(os.Args[2], os.Args[4]) }))
	case len(os.Args) == 4 && os.Args[1] == "server":
		runServer(os.Args[2], int(must(strconv.ParseUint(os.Args[3], 10, 16))))
	default:
		fmt.Fprintln(os.Stderr, "usage: peer client <url> <hash> <certificate> | peer server <certificate> <port>")
		os.Exit(2)
	}
}
