/* Messages as elements. Knows how a turn looks; leaves what happens on a click to the page. */

import {shade} from "./drafted.js";
import {toHtml} from "./server.js";

const PAUSE = 150; // ms, at least, from one rendering of an answer to the next
const policy = globalThis.trustedTypes?.createPolicy("rendered", {createHTML: (html) => html}) ??
  {createHTML: (html) => html};

export function add(parent, tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
}

function addButton(parent, action, label = action) {
  const button = add(parent, "button", action.toLowerCase(), action);
  button.type = "button";
  button.setAttribute("aria-label", label);
}

export function questionView(log, turn) {
  const article = add(log, "article", "user");
  add(article, "h2", "unseen", "You");
  add(article, "p", "plain", turn.content);
  const tools = add(article, "div", "tools");
  addButton(tools, "Edit", "Edit your last question");
  return article;
}

/* An element that shows Markdown as the server renders it: one request at a time, and the last text wins. */
class Rendered {
  #wanted = null;
  #working = null;
  #earliest = 0; // when the next rendering may begin

  /* shown: is told of the text that the element shows now. */
  constructor(element, shown) {
    this.element = element;
    this.shown = shown;
  }

  /* Resolves when the text, or a later one, is shown. */
  show(text) {
    this.#wanted = text;
    return this.#working ??= this.#work();
  }

  async #work() {
    while (this.#wanted !== null) {
      await new Promise((resolve) => setTimeout(resolve, this.#earliest - performance.now()));
      const text = this.#wanted, start = performance.now();
      this.#wanted = null;
      try {
        const html = policy.createHTML(await toHtml(text));
        this.element.classList.remove("plain");
        replaceChanged(this.element, html);
      } catch {
        this.element.classList.add("plain"); // better than nothing
        this.element.textContent = text;
      }
      this.#earliest = start + Math.max(PAUSE, 3 * (performance.now() - start)); // long texts take their time
      this.shown(text);
    }
    this.#working = null;
  }
}

/* Elements that stay the same are kept, with what is selected or focused in them. */
function replaceChanged(element, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const before = [...element.childNodes], after = [...template.content.childNodes];
  let same = 0;
  while (same < before.length && same < after.length && before[same].isEqualNode(after[same])) same++;
  before.slice(same).forEach((node) => node.remove());
  element.append(...after.slice(same));
}

export class AnswerView {
  constructor(log, turn) {
    this.turn = turn;
    this.article = add(log, "article", "assistant");
    add(this.article, "h2", "", turn.model);
    this.reasoning = null;
    this.calls = add(this.article, "div", "calls");
    this.text = add(this.article, "div", "text");
    this.article.insertBefore(this.text, this.calls);
    this.shownText = "";
    this.rendered = new Rendered(this.text, (text) => {
      this.shownText = text;
      this.shade();
    });
  }

  /* Shows what the turn holds; resolves when it stands there. */
  update() {
    const {reasoning, content, calls} = this.turn;
    if (reasoning) this.#showReasoning(reasoning, !content && calls.length === 0);
    calls.forEach((call, i) => this.#showCall(call, this.calls.children[i]));
    if (content && content !== this.shownText) return this.rendered.show(content);
    this.shade();
  }

  #showReasoning(text, isLast) {
    if (!this.reasoning) {
      const details = document.createElement("details");
      details.className = "reasoning";
      add(details, "summary", "", "Reasoning");
      add(details, "div", "plain");
      this.article.insertBefore(details, this.text);
      this.reasoning = details;
      this.isOpen = null;
    }
    this.reasoning.lastChild.textContent = text;
    const open = isLast && this.article.classList.contains("busy");
    if (open !== this.isOpen) this.reasoning.open = this.isOpen = open; // once each; then it is the reader's
  }

  #showCall(call, element) {
    if (!element) {
      element = add(this.calls, "div", "call");
      add(element, "strong");
      add(element, "pre");
    }
    element.firstChild.textContent = `Calls ${call.name}`;
    element.lastChild.textContent = call.arguments;
  }

  begin() {
    this.article.classList.add("busy");
  }

  /* What stands below an answer that has ended. */
  async end() {
    this.article.classList.remove("busy");
    await this.update();
    const {error, note, timings} = this.turn;
    if (error) add(this.article, "div", "error", error).setAttribute("role", "alert");
    const tools = add(this.article, "div", "tools");
    if (timings || note) add(tools, "span", "figures", note || figures(timings));
    if (this.turn.content) addButton(tools, "Copy", "Copy answer");
    addButton(tools, "Regenerate", "Regenerate answer");
  }

  shade() {
    shade(this.text, this.shownText, this.turn.drafted.content);
    if (this.reasoning) shade(this.reasoning.lastChild, this.turn.reasoning, this.turn.drafted.reasoning);
  }
}

function figures(timings) {
  const plain = timings.plain_per_second ? `, about ${timings.plain_per_second.toFixed(1)} without drafts` : "";
  return `${timings.acceptance_length.toFixed(2)} tokens per pass · ` +
    `${timings.predicted_per_second.toFixed(1)} tokens/s${plain} · ${timings.predicted_n} tokens`;
}
