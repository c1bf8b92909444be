// A bot in Go for `handler.kind = "forward"`.
//
//	go mod tidy
//	FORWARD_SECRET=whsec_… go run . [PORT]
//
// FORWARD_SECRET is the value of `handler.forward_secret`. The port is 3000 unless given; 0 is any free port.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// message has the fields of replyhook's JSON that this bot uses. A pointer is nil if Twilio did not send the value.
type message struct {
	Body        string  `json:"body"`
	ProfileName *string `json:"profile_name"`
	Location    *struct {
		Latitude  float64 `json:"latitude"`
		Longitude float64 `json:"longitude"`
		Label     *string `json:"label"`
	} `json:"location"`
}

// replyTo returns the bot's reply.
func replyTo(m message) string {
	name := "you"
	if m.ProfileName != nil {
		name = *m.ProfileName
	}
	if place := m.Location; place != nil {
		where := fmt.Sprintf("%v, %v", place.Latitude, place.Longitude)
		if place.Label != nil {
			where = *place.Label
		}
		return fmt.Sprintf("Hello %s, you are at %s.", name, where)
	}
	return fmt.Sprintf("Hello %s, you said: %s", name, m.Body)
}

func main() {
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("FORWARD_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	handle := func(w http.ResponseWriter, r *http.Request) {
		// 1 MiB is far more than a message needs. The limit keeps other local programs from filling the memory.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "request body too large", http.StatusRequestEntityTooLarge)
			return
		}
		// Verify the bytes as received, before they are parsed: the signature covers exactly them.
		if err := webhook.Verify(body, r.Header); err != nil {
			http.Error(w, "not signed with FORWARD_SECRET", http.StatusUnauthorized)
			return
		}
		var m message
		if err := json.Unmarshal(body, &m); err != nil {
			http.Error(w, "invalid JSON", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"body": replyTo(m)})
	}
	port := "3000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	// Loopback only: replyhook runs on the same machine.
	// Listen and Serve separately, so that the chosen port is known for port 0.
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, http.HandlerFunc(handle)))
}
