/* What was said and what is set: how it grows, what the server gets of it, how this browser keeps it. */

const CONVERSATION = "maskprobe-conversation", SETTINGS = "maskprobe-settings";
const DEFAULTS = {system: "", temperature: "", maxTokens: "", thinking: "", theme: "", shaded: false};

function kept(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise; // broken, or no storage here
  }
}

/* Whether the browser had room for it. */
function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export const settings = {...DEFAULTS, ...kept(SETTINGS, {})};
export const saveSettings = () => keep(SETTINGS, settings);

/* Questions {role, content} and answers, see newAnswer. */
export const turns = kept(CONVERSATION, []);
export const saveTurns = () => keep(CONVERSATION, turns);

/* A model's answer before its first word. drafted: runs of characters by field, [length, whether they were drafted]. */
export function newAnswer(model) {
  const drafted = {content: [], reasoning: []};
  return {role: "assistant", model, content: "", reasoning: "", calls: [], drafted, flags: [], note: "stopped"};
}

/* Adds a choice of a stream to an answer. */
export function grow(turn, {delta = {}, drafted = []}) {
  turn.flags.push(...drafted); // of tokens whose text may be held back
  addText(turn, "reasoning", delta.reasoning_content);
  addText(turn, "content", delta.content);
  for (const {index, function: called} of delta.tool_calls ?? []) {
    const call = turn.calls[index] ??= {name: "", arguments: ""};
    call.name += called?.name ?? "";
    call.arguments += called?.arguments ?? "";
  }
}

function addText(turn, field, text) {
  if (!text) return;
  turn[field] += text;
  const isDrafted = 2 * turn.flags.filter(Boolean).length > turn.flags.length;
  const last = turn.drafted[field].at(-1);
  if (last?.[1] === isDrafted) last[0] += text.length;
  else turn.drafted[field].push([text.length, isDrafted]);
  turn.flags = [];
}

export const isEmpty = (turn) => !turn.content && !turn.reasoning && turn.calls.length === 0;

/* The body of the request for the next answer. A question without an answer is not asked again with the next one. */
export function request() {
  const said = turns.filter((turn, i) => i === turns.length - 1 || !isEmpty(turns[turn.role === "user" ? i + 1 : i]));
  const messages = said.map(({role, content}) => ({role, content}));
  if (settings.system) messages.unshift({role: "system", content: settings.system});
  const body = {messages, stream: true};
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  if (settings.thinking) body.chat_template_kwargs = {enable_thinking: settings.thinking === "on"};
  return body;
}
