package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

const (
	streamsAtOnce = 100
	resendAfter   = 100 * time.Millisecond
)

// runClient keeps the QUIC connection in its own hands: with Transport.Dial the connection ends together with the
// session, and takes the capsule that says so along unsent.
func runClient(address string, certificate string) report {
	ctx := context.Background()
	target := must(url.Parse(address))
	script := scriptOf(target)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(certificate)))
	trust := &tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}}
	settings := &quic.Config{EnableDatagrams: true, EnableStreamResetPartialDelivery: true}
	var transport webtransport.Transport
	if script.name == "subprotocol" {
		transport.ApplicationProtocols = []string{"first", "second"}
	}
	socket := must(quic.DialAddr(ctx, target.Host, trust, settings))
	defer socket.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	connection := must(transport.NewClientConn(socket))
	response, session, err := connection.Dial(ctx, address, nil)
	if response != nil && response.StatusCode/100 != 2 {
		return report{"rejected": true, "status": response.StatusCode}
	}
	check(err)
	result := clientHalf(session, script)
	check(session.CloseWithError(0, ""))
	// When a request that comes later is answered, the server has seen the end of the session.
	answered := must(connection.RoundTrip(must(http.NewRequest(http.MethodGet, address, nil))))
	check(answered.Body.Close())
	return result
}

func clientHalf(session *webtransport.Session, script script) report {
	ctx := context.Background()
	switch script.name {
	case "connect":
		return report{"connected": true}
	case "bidirectional":
		question := answer(must(session.AcceptStream(ctx)))
		return report{"question": question, "answer": ask(must(session.OpenStreamSync(ctx)), "client asks")}
	case "unidirectional":
		question := must(io.ReadAll(must(session.AcceptUniStream(ctx))))
		stream := must(session.OpenUniStreamSync(ctx))
		must(io.WriteString(stream, "SERVER ASKS"))
		check(stream.Close())
		thanks := must(io.ReadAll(must(session.AcceptUniStream(ctx))))
		return report{"question": string(question), "thanks": string(thanks)}
	case "bulk":
		return clientBulk(must(session.OpenStreamSync(ctx)), bulkData(script.number("bytes")))
	case "datagrams":
		reply := askWithDatagram(session, []byte("client asks"), []byte("CLIENT ASKS"))
		small, large := make([]byte, script.number("large")), make([]byte, script.number("large"))
		for index := range small {
			small[index], large[index] = 'x', 'X'
		}
		return report{"answer": string(reply), "large": len(askWithDatagram(session, small, large))}
	case "reset", "stop":
		var codes []any
		for _, code := range script.codes() {
			stream := must(session.OpenStreamSync(ctx))
			must(fmt.Fprintf(stream, "%d\n", code))
			if script.name == "stop" {
				codes = append(codes, codeOfStop(stream))
				stream.CancelRead(code)
			} else {
				codes = append(codes, codeOfReset(stream))
				stream.CancelWrite(code)
			}
		}
		ask(must(session.OpenStreamSync(ctx)), "done\n")
		return report{"codes": codes}
	case "close-by-client":
		code := webtransport.SessionErrorCode(script.number("code"))
		check(session.CloseWithError(code, script.parameters.Get("reason")))
		return report{}
	case "close-by-server":
		return closing(session)
	case "subprotocol":
		return report{"protocol": session.SessionState().ApplicationProtocol}
	case "many":
		return report{"streams": clientMany(session, script.number("streams"))}
	case "drain":
		return report{"answer": ask(must(session.OpenStreamSync(ctx)), "still here")}
	}
	panic(failure{fmt.Errorf("no script `%s`", script.name)})
}

func clientBulk(stream *webtransport.Stream, data []byte) report {
	var writing sync.WaitGroup
	var failed error
	writing.Go(func() {
		if _, failed = stream.Write(data); failed == nil {
			failed = stream.Close()
		}
	})
	received := must(io.ReadAll(stream))
	writing.Wait()
	check(failed)
	return report{"bytes": len(received), "sha256": fmt.Sprintf("%x", sha256.Sum256(received))}
}

func askWithDatagram(session *webtransport.Session, question, expected []byte) []byte {
	for {
		check(session.SendDatagram(question))
		ctx, cancel := context.WithTimeout(context.Background(), resendAfter)
		for {
			reply, err := session.ReceiveDatagram(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				break
			}
			check(err)
			if string(reply) == string(expected) {
				cancel()
				return reply
			}
		}
		cancel()
	}
}

// closing waits for the end of the session and tells how the other side announced it.
func closing(session *webtransport.Session) report {
	<-session.Context().Done()
	_, err := session.AcceptStream(context.Background())
	var closed *webtransport.SessionError
	if errors.As(err, &closed) && closed.Remote {
		return report{"code": closed.ErrorCode, "reason": closed.Message}
	}
	return report{"error": fmt.Sprint(err)}
}

func clientMany(session *webtransport.Session, count uint64) uint64 {
	var next, right atomic.Uint64
	var workers sync.WaitGroup
	for range streamsAtOnce {
		workers.Go(func() {
			caught(func() report {
				for number := next.Add(1) - 1; number < count; number = next.Add(1) - 1 {
					question := fmt.Sprintf("%08d", number)
					if ask(must(session.OpenStreamSync(context.Background())), question) == question {
						right.Add(1)
					}
				}
				return nil
			})
		})
	}
	workers.Wait()
	return right.Load()
}
