#!/usr/bin/env node
// Starts the program of this platform's package, with the same arguments, standard streams and exit code.
"use strict";

const { spawn } = require("node:child_process");
const os = require("node:os");

const name = `@replyhook/${process.platform}-${process.arch}`;
let program;
try {
  program = require.resolve(`${name}/bin/replyhook`);
} catch {
  console.error(
    `replyhook: the package ${name} is not installed. npm installs it as an optional dependency, unless it is called ` +
      "with --omit=optional, or there is no package for this platform. Then build replyhook from source.",
  );
  process.exit(2);
}

const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });

// A terminal sends Ctrl-C to both processes. This one must stay until the program has ended, to pass on its exit code.
// A signal that was sent to this process alone is passed on: the program then stops gracefully.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  });
}

child.on("error", (error) => {
  console.error(`replyhook: ${program} cannot be started: ${error.message}`);
  process.exit(2);
});
child.on("exit", (code, signal) => {
  // The exit code that a shell reports for a process that a signal has ended.
  process.exit(signal ? 128 + os.constants.signals[signal] : code);
});
