-- What Twilio holds until its time, to be called back when its user opts out.
CREATE INDEX reply_scheduled ON reply (id) WHERE status = 'scheduled';
