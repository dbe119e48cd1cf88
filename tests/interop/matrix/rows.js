// The client's half of every script in rows.py, played by a page. `parameters` are those of the row's path.
const STREAMS_AT_ONCE = 100;
const RESEND_MILLISECONDS = 100;

async function ask(session, question) {
  const stream = await createStream(session);
  const [, answer] = await Promise.all([writeAll(stream.writable, question), readText(stream.readable)]);
  return answer;
}

async function askDatagram(writer, reader, question) {
  const wanted = question.toUpperCase();
  const repeating = setInterval(() => writer.write(encode(question)).catch(() => {}), RESEND_MILLISECONDS);
  try {
    writer.write(encode(question));
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("no more datagrams");
      // Answers to repetitions of an earlier question may still be under way.
      if (decode(value) === wanted) return wanted;
    }
  } finally {
    clearInterval(repeating);
  }
}

async function readToFailure(reader) {
  const reading = async () => {
    while (!(await reader.read()).done);
  };
  return failure(reading());
}

// Chromium and Firefox sometimes report a stop to the page before they know its code.
const TELLS_NO_CODE = ["NetworkError", "AbortError"];

const halves = {
  async connect() {
    return { connected: true };
  },

  async bidirectional(session) {
    const stream = await nextStream(session.incomingBidirectionalStreams);
    const question = await readText(stream.readable);
    await writeAll(stream.writable, question.toUpperCase());
    return { question, answer: await ask(session, "client asks") };
  },

  async unidirectional(session) {
    const question = await readText(await nextStream(session.incomingUnidirectionalStreams));
    await writeAll(await session.createUnidirectionalStream(), question.toUpperCase());
    const thanks = await readText(await nextStream(session.incomingUnidirectionalStreams));
    return { question, thanks };
  },

  async bulk(session, parameters) {
    const data = new Uint8Array(Number(parameters.bytes)).map((_, index) => index % 251);
    const stream = await createStream(session);
    const [, received] = await Promise.all([writeAll(stream.writable, data), readBytes(stream.readable)]);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", received));
    const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return { bytes: received.length, sha256 };
  },

  async datagrams(session, parameters) {
    const { datagrams } = session;
    const writer = (datagrams.createWritable?.() ?? datagrams.writable).getWriter();
    const reader = datagrams.readable.getReader();
    const answer = await askDatagram(writer, reader, "client asks");
    const large = await askDatagram(writer, reader, "x".repeat(Number(parameters.large)));
    return { answer, large: large.length };
  },

  async reset(session, parameters) {
    const codes = [];
    for (const code of parameters.codes.split(",").map(Number)) {
      const stream = await createStream(session);
      const writer = stream.writable.getWriter();
      await writer.write(encode(`${code}\n`));
      const reader = stream.readable.getReader();
      if (parameters.first === "client") {
        await reader.read();
        await writer.abort(streamError(code));
      }
      const error = await readToFailure(reader);
      codes.push(error && error.code);
      if (parameters.first !== "client") await writer.abort(streamError(code));
    }
    await ask(session, "done\n");
    return { codes };
  },

  async stop(session, parameters) {
    const codes = [];
    for (const code of parameters.codes.split(",").map(Number)) {
      for (let again = ""; ; again = "again ") {
        const stream = await createStream(session);
        const writer = stream.writable.getWriter();
        writer.write(encode(`${again}${code}\n`)).catch(() => {});
        const error = await failure(writer.closed);
        await stream.readable.cancel(streamError(code));
        if (error === null || !TELLS_NO_CODE.includes(error.name)) {
          codes.push(error && error.code);
          break;
        }
      }
    }
    await ask(session, "done\n");
    return { codes };
  },

  async "close-by-client"(session, parameters) {
    session.close({ closeCode: Number(parameters.code), reason: parameters.reason });
    await session.closed;
    return {};
  },

  async "close-by-server"(session) {
    const { closeCode, reason } = await session.closed;
    return { code: closeCode, reason };
  },

  async subprotocol(session) {
    return { protocol: session.protocol ?? null };
  },

  async many(session, parameters) {
    const count = Number(parameters.streams);
    let next = 0;
    let streams = 0;
    async function work() {
      while (next < count) {
        const question = String(next++).padStart(8, "0");
        if (await ask(session, question) === question) streams++;
      }
    }
    await Promise.all(Array.from({ length: STREAMS_AT_ONCE }, work));
    return { streams };
  },

  async drain(session) {
    return { answer: await ask(session, "still here") };
  },
};

async function play({ name, parameters, ...target }) {
  let session;
  try {
    session = await openSession(target);
  } catch (error) {
    return error.name === "WebTransportError" ? { rejected: true } : { error: String(error) };
  }
  const report = await halves[name](session, parameters);
  session.close();
  await session.closed;
  return report;
}
