// A bot in Go behind `handler.kind = "forward"`: go mod tidy
//
//	FORWARD_SECRET=whsec_… go run . [PORT]
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

// What replyhook posts; there is more.
type message struct {
	Body        string  `json:"body"`
	ProfileName *string `json:"profile_name"`
	Location    *struct {
		Latitude  float64 `json:"latitude"`
		Longitude float64 `json:"longitude"`
		Label     *string `json:"label"`
	} `json:"location"`
}

// What the bot says; an empty text is nothing.
func answer(m message) string {
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
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "too much", http.StatusRequestEntityTooLarge)
			return
		}
		// The very bytes that came: the signature is over them.
		if err := webhook.Verify(body, r.Header); err != nil {
			http.Error(w, "not signed with FORWARD_SECRET", http.StatusUnauthorized)
			return
		}
		var m message
		if err := json.Unmarshal(body, &m); err != nil {
			http.Error(w, "no message", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"body": answer(m)})
	}
	port := "3000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, http.HandlerFunc(handle)))
}
