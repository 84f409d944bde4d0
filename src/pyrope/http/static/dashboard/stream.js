// Server-sent events by fetch, as EventSource cannot sign in. Comes back by itself when the
// connection is lost, later each time.

import { ask, refusalOf } from "./session.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;
// An event comes every second, or every few where there are very many indexes.
const SILENCE_MS = 30000;

export class Stream {
  #stop = new AbortController();
  #onEvent;
  #onState;

  // onState is told ("live"), ("lost", why) or ("refused", refusal); the latter is the end.
  constructor(onEvent, onState) {
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  // Begins anew.
  open(path) {
    this.close();
    this.#stop = new AbortController();
    this.#keep(path, this.#stop.signal);
  }

  close() {
    this.#stop.abort();
  }

  async #keep(path, stopped) {
    let pauseMs = FIRST_PAUSE_MS;
    while (!stopped.aborted) {
      let waitMs = 0;
      try {
        const answer = await this.#ask(path, stopped);
        if (answer.refusal) {
          const { status, code, detail } = answer.refusal;
          if (status === 401 || code === "WRONGPASS" || code === "NOPERM") {
            this.#onState("refused", answer.refusal);
            return;
          }
          waitMs = answer.refusal.waitMs;
          this.#onState("lost", detail);
        } else {
          pauseMs = FIRST_PAUSE_MS;
          if (!stopped.aborted) this.#onState("lost", "the connection has ended");
        }
      } catch {
        if (stopped.aborted) return;
        this.#onState("lost", "the server does not answer");
      }
      await new Promise((resolve) => setTimeout(resolve, Math.max(pauseMs, waitMs)));
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }

  // Returns when the answer ends.
  async #ask(path, stopped) {
    const silent = new AbortController();
    let watchdog = setTimeout(() => silent.abort(), SILENCE_MS);
    try {
      const answer = await ask(path, {
        headers: { Accept: "text/event-stream" },
        signal: AbortSignal.any([stopped, silent.signal]),
      });
      if (!answer.ok) return { refusal: await refusalOf(answer) };
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return {};
        clearTimeout(watchdog);
        watchdog = setTimeout(() => silent.abort(), SILENCE_MS);
        const parts = (text + value).split("\n\n");
        text = parts.pop();
        for (const part of parts) this.#take(part, stopped);
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  #take(part, stopped) {
    // Other events say why there are no more: the next attempt is told that, too.
    if (stopped.aborted || !part.startsWith("data: ")) return;
    this.#onState("live");
    this.#onEvent(JSON.parse(part.slice("data: ".length)));
  }
}
