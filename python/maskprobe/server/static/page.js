/* The chat: what happens on keys and clicks, and how an answer comes. */

import {grow, newAnswer, request, saveSettings, saveTurns, settings, turns} from "./conversation.js";
import {canShade, turnShades} from "./drafted.js";
import {chat, modelName} from "./server.js";
import {endSpeech, speak, startSpeech} from "./speech.js";
import {AnswerView, questionView} from "./view.js";

const $ = (id) => document.getElementById(id);
const log = $("log"), message = $("message");
const views = new Map(); // of answers, by their articles
let running = null; // the AbortController of the answer that is coming
let editing = false; // whether the message takes the place of the last one

const articles = () => [...log.querySelectorAll("article")]; // one of each turn

/* --- an answer --- */

async function answer() {
  const controller = running = new AbortController();
  const body = request(), turn = newAnswer($("model").textContent), view = addAnswer(turn);
  turns.push(turn);
  keepTurns();
  view.begin();
  growing.observe(view.article);
  showBusy(true);
  startSpeech();
  try {
    for await (const part of chat(body, controller.signal)) {
      if (part.choices[0]) grow(turn, part.choices[0]);
      if (part.timings) turn.timings = part.timings;
      beforeNextFrame(() => { view.update(); speak(turn.content, false); });
    }
    turn.note = "";
  } catch (error) {
    if (error.name !== "AbortError") Object.assign(turn, {error: error.message, note: ""});
  }
  if (!view.article.isConnected) return; // the chat was begun anew
  running = null;
  keepTurns();
  speak(turn.content, true);
  endSpeech();
  showBusy(false, turn.error ? "" : turn.note ? "Stopped." : "The answer is complete.");
  await view.end();
  showTools();
}

function addAnswer(turn) {
  const view = new AnswerView(log, turn);
  views.set(view.article, view);
  return view;
}

let frame = 0;
function beforeNextFrame(action) {
  frame ||= requestAnimationFrame(() => { frame = 0; action(); });
}

function keepTurns() {
  if (!saveTurns()) $("status").textContent = "This browser has no room to keep the conversation.";
}

function showBusy(busy, status = "Answering.") {
  log.setAttribute("aria-busy", String(busy));
  $("stop").hidden = !busy;
  $("send").hidden = busy;
  $("status").textContent = status;
  showTools();
  if (!busy) message.focus();
}

/* The last question can be edited, the last answer made again; not while one is coming. */
function showTools() {
  const last = articles().slice(-2);
  for (const button of log.querySelectorAll(".edit, .regenerate")) {
    button.hidden = running !== null || !last.includes(button.closest("article"));
  }
}

/* Who is at the end of the log stays there while the answer grows. */
let isAtEnd = true;
const scrollDown = () => { log.scrollTop = log.scrollHeight; };
const growing = new ResizeObserver(() => { if (isAtEnd) scrollDown(); });
log.addEventListener("scroll", () => { isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60; });

/* --- the conversation --- */

function send() {
  const text = message.value.trim();
  if (!text || running) return;
  if (editing) forget(turns.length - 2);
  setEditing(false);
  turns.push({role: "user", content: text});
  questionView(log, turns.at(-1));
  $("welcome").hidden = true;
  scrollDown();
  answer();
}

/* Takes back the turns from one on. */
function forget(from) {
  turns.splice(from);
  for (const article of articles().slice(from)) {
    article.remove();
    views.delete(article);
  }
}

function setEditing(on) {
  editing = on;
  $("editing").hidden = !on;
  message.value = on ? turns.at(-2).content : "";
  message.focus();
}

function regenerate() {
  forget(turns.length - 1);
  answer();
}

function newChat() {
  running?.abort();
  running = null;
  growing.disconnect();
  forget(0);
  keepTurns();
  setEditing(false);
  showBusy(false, "A new chat.");
  $("welcome").hidden = false;
}

/* --- clicks and keys --- */

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not allowed on pages that came without TLS
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  $("status").textContent = "Copied.";
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

log.addEventListener("click", ({target}) => {
  const button = target.closest("button"), code = button?.closest(".code");
  if (!button) return;
  if (code) copy(code.querySelector("code").textContent, button);
  else if (button.matches(".copy")) copy(views.get(button.closest("article")).turn.content, button);
  else if (button.matches(".edit")) setEditing(true);
  else if (button.matches(".regenerate")) regenerate();
});

$("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (running) running.abort();
  else if (editing) setEditing(false);
});
$("stop").addEventListener("click", () => running?.abort());
$("new").addEventListener("click", newChat);
addEventListener("beforeunload", () => running?.abort()); // the answer is stopped, not broken
addEventListener("pagehide", () => { if (running) saveTurns(); });

/* --- settings --- */

$("open-settings").addEventListener("click", () => {
  for (const field of $("settings-form").elements) if (field.name) field.value = settings[field.name];
  $("settings").showModal();
});
$("cancel-settings").addEventListener("click", () => $("settings").close());
$("settings-form").addEventListener("submit", (event) => {
  event.preventDefault();
  set(Object.fromEntries(new FormData(event.target)));
  $("settings").close();
});
$("shade").addEventListener("click", () => set({shaded: !settings.shaded}));

function set(changed) {
  Object.assign(settings, changed);
  saveSettings();
  useSettings();
}

function useSettings() {
  document.documentElement.dataset.theme = settings.theme;
  $("shade").hidden = !canShade;
  $("shade").setAttribute("aria-pressed", String(settings.shaded));
  $("legend").hidden = !(canShade && settings.shaded);
  turnShades(settings.shaded);
  views.forEach((view) => view.shade());
}

/* --- the start --- */

useSettings();
modelName().then((name) => {
  $("model").textContent = name;
  $("welcome").querySelector("strong").textContent = "Ask " + name;
}).catch(() => {}); // an answer will say what is wrong
$("welcome").hidden = turns.length > 0;
Promise.all(turns.map((turn) => turn.role === "user" ? questionView(log, turn) : addAnswer(turn).end())).then(() => {
  showTools();
  scrollDown();
});
