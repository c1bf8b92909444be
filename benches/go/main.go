// The webhook of a bot with Go's standard library: it verifies the signature and returns the user's text as TwiML. It
// stores nothing, and has no limits beyond those of net/http. `benches/compare.rs` measures it.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"os"
	"sort"
)

const maxBody = 128 * 1024

func main() {
	token := []byte(os.Getenv("TWILIO_AUTH_TOKEN"))
	public := os.Getenv("PUBLIC_URL")
	http.HandleFunc("/webhook", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, "body", http.StatusBadRequest)
			return
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			http.Error(w, "form", http.StatusBadRequest)
			return
		}
		names := make([]string, 0, len(form))
		for name := range form {
			names = append(names, name)
		}
		sort.Strings(names)
		mac := hmac.New(sha1.New, token)
		io.WriteString(mac, public)
		io.WriteString(mac, r.URL.RequestURI())
		for _, name := range names {
			io.WriteString(mac, name)
			io.WriteString(mac, form.Get(name))
		}
		signature, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Twilio-Signature"))
		if err != nil || !hmac.Equal(signature, mac.Sum(nil)) {
			http.Error(w, "signature", http.StatusForbidden)
			return
		}
		var reply bytes.Buffer
		reply.WriteString(`<?xml version="1.0" encoding="UTF-8"?><Response><Message>`)
		xml.EscapeText(&reply, []byte(form.Get("Body")))
		reply.WriteString(`</Message></Response>`)
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		w.Write(reply.Bytes())
	})
	if err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil); err != nil {
		panic(err)
	}
}
