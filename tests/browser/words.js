// Small words for the tests; each test evaluates its own few lines with them.
const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);

const ended = new WeakSet();
let waiting = Promise.resolve();

async function openSession({ url, hash, options }) {
  const value = Uint8Array.from(atob(hash), (character) => character.charCodeAt(0));
  const session = new WebTransport(url, {
    serverCertificateHashes: [{ algorithm: "sha-256", value }],
    ...options,
  });
  session.closed.catch(() => {}).then(() => ended.add(session));
  await session.ready;
  return session;
}

// Chromium refuses a stream beyond the credit of the moment instead of waiting, and reports each attempt to the server: with
// 1000 such messages unacknowledged it ends the connection. So only one of those who wait tries again.
async function createStream(session) {
  try {
    return await session.createBidirectionalStream();
  } catch {
    const stream = waiting.then(() => createStreamWhenPossible(session));
    waiting = stream.catch(() => {});
    return stream;
  }
}

async function createStreamWhenPossible(session) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await session.createBidirectionalStream();
    } catch (error) {
      if (attempt === 200 || ended.has(session)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

async function readBytes(readable) {
  const pieces = [];
  for await (const piece of readable) pieces.push(piece);
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

async function readText(readable) {
  return decode(await readBytes(readable));
}

async function writeAll(writable, data) {
  const writer = writable.getWriter();
  await writer.write(typeof data === "string" ? encode(data) : data);
  await writer.close();
}

async function nextStream(incoming) {
  const reader = incoming.getReader();
  const { value, done } = await reader.read();
  reader.releaseLock();
  if (done) throw new Error("no further stream");
  return value;
}

// The constructor took one dictionary before it took a message and options.
function streamError(streamErrorCode) {
  try {
    return new WebTransportError({ streamErrorCode });
  } catch {
    return new WebTransportError("from the page", { streamErrorCode });
  }
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: error.name, source: error.source ?? null, code: error.streamErrorCode ?? null };
  }
  return null;
}
