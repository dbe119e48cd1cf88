package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

func runServer(certificate string, port int) {
	pair := must(tls.LoadX509KeyPair(certificate, certificate))
	server := webtransport.Server{
		H3: &http3.Server{
			TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		},
		ApplicationProtocols: []string{"second"},
	}
	webtransport.ConfigureHTTP3Server(server.H3)
	server.H3.Handler = http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		script := scriptOf(request.URL)
		if script.name == "rejection" {
			writer.WriteHeader(int(script.number("status")))
			printLine(report{})
			return
		}
		session, err := server.Upgrade(writer, request)
		if err != nil {
			printLine(report{"error": err.Error()})
			return
		}
		printLine(caught(func() report { return serverHalf(session, script) }))
	})
	socket := must(net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}))
	printLine(report{"port": socket.LocalAddr().(*net.UDPAddr).Port})
	go func() {
		if err := server.Serve(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	must(io.Copy(io.Discard, os.Stdin))
}

func serverHalf(session *webtransport.Session, script script) report {
	ctx := context.Background()
	var result report
	switch script.name {
	case "connect":
		result = report{"path": script.path}
	case "bidirectional":
		reply := ask(must(session.OpenStreamSync(ctx)), "server asks")
		result = report{"question": answer(must(session.AcceptStream(ctx))), "answer": reply}
	case "unidirectional":
		say(session, "server asks")
		result = report{"answer": string(must(io.ReadAll(must(session.AcceptUniStream(ctx)))))}
		say(session, "server thanks")
	case "bulk":
		result = serverBulk(must(session.AcceptStream(ctx)), bulkData(script.number("bytes")))
	case "datagrams":
		result = serverDatagrams(session)
	case "reset", "stop":
		result = serverCodes(session, script.name == "stop")
	case "close-by-client":
		return closing(session)
	case "close-by-server":
		code := webtransport.SessionErrorCode(script.number("code"))
		check(session.CloseWithError(code, script.parameters.Get("reason")))
		return report{}
	case "subprotocol":
		result = report{"protocol": session.SessionState().ApplicationProtocol}
	case "many":
		result = report{"streams": serverMany(session)}
	case "drain":
		result = report{"question": answer(must(session.AcceptStream(ctx)))}
	default:
		return report{"error": fmt.Sprintf("no script `%s`", script.name)}
	}
	<-session.Context().Done()
	return result
}

func say(session *webtransport.Session, text string) {
	stream := must(session.OpenUniStreamSync(context.Background()))
	must(io.WriteString(stream, text))
	check(stream.Close())
}

func serverBulk(stream *webtransport.Stream, data []byte) report {
	var writing sync.WaitGroup
	var failed error
	writing.Go(func() { _, failed = stream.Write(data) })
	received := must(io.ReadAll(stream))
	writing.Wait()
	check(failed)
	check(stream.Close())
	return report{"bytes": len(received), "sha256": fmt.Sprintf("%x", sha256.Sum256(received))}
}

func serverDatagrams(session *webtransport.Session) report {
	var question any
	large := 0
	for {
		datagram, err := session.ReceiveDatagram(session.Context())
		if err != nil {
			return report{"question": question, "large": large}
		}
		if question == nil {
			question = string(datagram)
		}
		large = max(large, len(datagram))
		check(session.SendDatagram(bytes.ToUpper(datagram)))
	}
}

func serverCodes(session *webtransport.Session, stop bool) report {
	var codes []any
	for {
		stream := must(session.AcceptStream(context.Background()))
		line := readLine(stream)
		if line == "done" {
			must(io.WriteString(stream, "DONE"))
			check(stream.Close())
			return report{"codes": codes}
		}
		code := webtransport.StreamErrorCode(must(strconv.ParseUint(line, 10, 32)))
		if stop {
			stream.CancelRead(code)
			codes = append(codes, codeOfStop(stream))
		} else {
			stream.CancelWrite(code)
			codes = append(codes, codeOfReset(stream))
		}
	}
}

func serverMany(session *webtransport.Session) uint64 {
	var count atomic.Uint64
	for {
		stream, err := session.AcceptStream(context.Background())
		if err != nil {
			return count.Load()
		}
		go caught(func() report {
			data := must(io.ReadAll(stream))
			count.Add(1)
			must(stream.Write(data))
			check(stream.Close())
			return nil
		})
	}
}
