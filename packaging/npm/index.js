// Bots as services of replyhook: `bot` answers its requests, and `Client` calls its HTTP API.
"use strict";

const { bot, serve, verify } = require("./bot.js");
const { ApiError, Client } = require("./client.js");

module.exports = { ApiError, Client, bot, serve, verify };
