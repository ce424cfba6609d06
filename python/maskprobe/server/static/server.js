/* Requests to this server, with the key if it wants one. */

const KEY = "maskprobe-api-key";
const dialog = document.getElementById("ask"), field = document.getElementById("key");

document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, field.value);
  dialog.close();
});

function askForKey() {
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", resolve, {once: true}));
}

/* What the server says is wrong. */
class Refusal extends Error {
  constructor({message, param}) {
    super(message);
    this.param = param;
  }
}

async function call(path, options) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = {"Content-Type": "application/json"};
    if (key !== null) headers.Authorization = "Bearer " + key;
    const response = await fetch(path, {...options, headers});
    if (response.ok) return response;
    if (response.status === 401) await askForKey();
    else throw new Refusal(await errorOf(response));
  }
}

async function errorOf(response) {
  try {
    return (await response.json()).error;
  } catch { // not from this server
    return {message: `The server answered with ${response.status} ${response.statusText}`};
  }
}

const post = (path, body, signal) => call(path, {method: "POST", body: JSON.stringify(body), signal});

export const modelName = async () => (await (await call("v1/models")).json()).data[0].id;

export const toHtml = async (markdown) => (await (await post("render", {text: markdown})).json()).html;

let tellsDrafts = true; // whether this model's answers can say which of their tokens were drafted

/* The parts of the answer to a body. */
export async function* chat(body, signal) {
  let response;
  try {
    response = await post("v1/chat/completions", tellsDrafts ? {...body, return_drafted: true} : body, signal);
  } catch (error) {
    if (error.param !== "return_drafted") throw error;
    tellsDrafts = false;
    response = await post("v1/chat/completions", body, signal);
  }
  yield* events(response.body);
}

/* The JSON objects of an event stream, up to its [DONE]. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const lines = (buffer + value).split("\n");
    buffer = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue; // a comment
      const data = line.slice("data: ".length);
      if (data === "[DONE]") return;
      const part = JSON.parse(data);
      if (part.error) throw new Refusal(part.error);
      yield part;
    }
  }
}
