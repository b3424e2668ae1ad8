"use strict";
// One page, no library. A text is a list of tokens {id, spelled, logprob, top, given}; what stands on
// the page is made from it. To go on from a token is to ask for a continuation of the ids up to it.

const $ = (id) => document.getElementById(id);
const tokens = [];
const past = []; // texts to go back to
let selected = -1;
let running = null; // the AbortController of the request under way
let key = sessionStorage.getItem("key") || "";
const ALTERNATIVES = 12;

// ---- the server ----

class Refused extends Error {}

async function ask(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const how = { method: body ? "POST" : "GET", headers, signal };
  if (body) how.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, how);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached.");
  }
  if (answer.status === 401) $("door").hidden = false;
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Refused(said?.error?.message ?? `The server answers ${answer.status}.`);
  }
  return answer;
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused("The connection ended early.");
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.slice("data: ".length);
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(chunk.error.message);
      yield chunk;
    }
  }
}

// ---- tokens and their texts ----

function bytesOf(spelled) {
  const inHexadecimal = /^bytes:((?:\\x[0-9a-f]{2})+)$/.exec(spelled);
  if (!inHexadecimal) return new TextEncoder().encode(spelled);
  return Uint8Array.from(inHexadecimal[1].slice(2).split("\\x"), (pair) => parseInt(pair, 16));
}

const newDecoder = () => new TextDecoder("utf-8", { ignoreBOM: true });

// The text that is complete with each token: bytes of one character may be several tokens.
function textsOf(list) {
  const decoder = newDecoder();
  return list.map((token) => decoder.decode(bytesOf(token.spelled), { stream: true }));
}

function shown(spelled) {
  if (spelled.startsWith("bytes:\\x")) return spelled.slice("bytes:".length);
  return spelled.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ | $/g, "␣");
}

function percent(logprob) {
  const p = 100 * Math.exp(logprob);
  if (p >= 99.95) return "100 %";
  return p >= 10 ? `${p.toFixed(0)} %` : p >= 0.1 ? `${p.toFixed(1)} %` : p >= 0.001 ? `${p.toFixed(3)} %` : "< 0.001 %";
}

// How deep the colour is, from 0 to 78: by the surprise, whole at ten bits.
const depth = (logprob) => (logprob === null ? 0 : Math.min(1, -logprob / Math.LN2 / 10) * 78);

// ---- the text ----

function draw(from = 0) {
  const place = $("text");
  while (place.childNodes.length > from) place.lastChild.remove();
  const texts = textsOf(tokens);
  for (let i = from; i < tokens.length; i++) place.append(tokenElement(i, texts[i]));
  $("back").disabled = past.length === 0 || running !== null;
  $("more").disabled = $("copy").disabled = tokens.length === 0 || running !== null;
}

function tokenElement(i, text) {
  const token = tokens[i];
  const element = document.createElement("span");
  element.className = `token${token.given ? " given" : " new"}`;
  element.setAttribute("role", "button");
  element.tabIndex = i === Math.max(selected, 0) ? 0 : -1;
  element.dataset.at = i;
  element.style.setProperty("--s", depth(token.logprob));
  const how = token.logprob === null ? "the first" : percent(token.logprob);
  element.setAttribute("aria-label", `${shown(token.spelled)}: ${how}`);
  element.setAttribute("aria-pressed", String(i === selected));
  element.title = how;
  if (text === "") addMark(element, "·");
  for (const [at, line] of text.split("\n").entries()) {
    if (at > 0) {
      addMark(element, "⏎");
      element.append("\n");
    }
    element.append(line);
  }
  return element;
}

function addMark(element, sign) {
  const mark = document.createElement("span");
  mark.className = "mark";
  mark.textContent = sign;
  element.append(mark);
}

function say(text, isWrong = false, where = "status") {
  $(where).textContent = text;
  $(where).classList.toggle("wrong", isWrong);
}

function summary(made, seconds, ending) {
  const scored = tokens.filter((token) => token.logprob !== null);
  const mean = scored.reduce((sum, token) => sum - token.logprob, 0) / Math.max(1, scored.length);
  const parts = [`${made} ${made === 1 ? "token" : "tokens"}`];
  if (seconds > 0 && made > 1) parts.push(`${(made / seconds).toFixed(0)} a second`);
  if (scored.length) parts.push(`perplexity ${Math.exp(mean).toFixed(1)}`);
  return parts.join(" · ") + ending;
}

// ---- asking for text ----

function settings() {
  const asked = {};
  for (const name of ["max_tokens", "temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty"]) {
    if ($(name).value !== "") asked[name] = Number($(name).value);
  }
  if ($("seed").value !== "") asked.seed = Number($("seed").value);
  if ($("stop").value !== "") asked.stop = $("stop").value;
  return asked;
}

async function generate(request, keep) {
  if (running || !$("ask").reportValidity()) return;
  if (tokens.length) past.push(tokens.slice());
  tokens.length = keep.length;
  keep.forEach((token, i) => { tokens[i] = token; });
  select(-1);
  running = new AbortController();
  setBusy(true);
  draw();
  say("…");
  const began = performance.now();
  let first = 0, made = 0, finish = null;
  try {
    const body = { ...settings(), ...request, stream: true, logprobs: ALTERNATIVES, return_token_ids: true };
    const answer = await ask("/v1/completions", body, running.signal);
    for await (const chunk of events(answer)) {
      const choice = chunk.choices[0];
      if (!choice) continue;
      first ||= performance.now();
      finish = choice.finish_reason ?? finish;
      made = add(choice.logprobs, body, made);
      say(`${made} tokens`);
    }
    say(summary(made, (performance.now() - first) / 1000, finish === "stop" ? " · it ended there" : ""));
  } catch (error) {
    if (error.name === "AbortError") say(summary(made, (performance.now() - (first || began)) / 1000, " · stopped"));
    else say(error instanceof Refused ? error.message : String(error), true);
  } finally {
    running = null;
    setBusy(false);
    draw(tokens.length);
  }
}

// Takes in the tokens of one chunk; those of an echoed prompt come with its first.
function add(scores, body, made) {
  const from = tokens.length;
  let given = body.echo && from === 0 ? scores.token_ids.length : 0;
  if (given) {
    // The prompt's tokens are those that begin before its end.
    const end = Array.from(body.prompt).length;
    given = scores.text_offset.filter((offset) => offset < end).length || 1;
  }
  scores.token_ids.forEach((id, i) => {
    tokens.push({ id, spelled: scores.tokens[i], logprob: scores.token_logprobs[i], top: scores.top[i] ?? [], given: i < given });
  });
  draw(from);
  return made + scores.token_ids.length - given;
}

function setBusy(isBusy) {
  $("run").hidden = isBusy;
  $("halt").hidden = !isBusy;
  $("text").setAttribute("aria-busy", String(isBusy));
}

const ids = (list) => list.map((token) => token.id);

function start() {
  const special = $("parse_special").checked;
  return generate({ prompt: $("prompt").value, echo: true, parse_special: special }, []);
}

function goOn() {
  return generate({ prompt: ids(tokens) }, tokens.slice());
}

function goOnFrom(at, other) {
  const before = tokens.slice(0, at);
  const taken = { ...tokens[at], id: other.id, spelled: other.token, logprob: other.logprob, given: false };
  const list = [...before, taken];
  return generate({ prompt: ids(list) }, list);
}

function goBack() {
  const text = past.pop();
  if (!text) return;
  tokens.length = 0;
  tokens.push(...text);
  select(-1);
  draw();
  say(`${tokens.length} tokens`);
}

// ---- alternatives ----

function select(at, takesFocus = false) {
  const before = $("text").children[Math.max(selected, 0)];
  if (before) {
    before.setAttribute("aria-pressed", "false");
    before.tabIndex = -1;
  }
  selected = at;
  document.body.classList.toggle("looking", at >= 0);
  const now = $("text").children[Math.max(at, 0)];
  if (now) now.tabIndex = 0;
  $("others").replaceChildren();
  if (at < 0) {
    $("chosen").textContent = "Choose a token to see what else the model thought of, and go on from there.";
    return;
  }
  now.setAttribute("aria-pressed", "true");
  if (takesFocus) now.focus({ preventScroll: true });
  explain(tokens[at]);
  for (const other of tokens[at].top) $("others").append(alternative(at, other));
  if (takesFocus) keepInSight(now);
}

function keepInSight(element) {
  const sheet = getComputedStyle($("why")).position === "fixed" ? $("why").offsetHeight : 0;
  const box = element.getBoundingClientRect();
  const over = box.bottom + 16 - (innerHeight - sheet);
  if (over > 0) scrollBy({ top: over });
  else if (box.top < 8) scrollBy({ top: box.top - 24 });
}

function explain(token) {
  const code = document.createElement("code");
  code.textContent = shown(token.spelled);
  const parts = [`id ${token.id}`];
  if (token.logprob === null) parts.push("the first token: nothing predicts it");
  else {
    const rank = token.top.findIndex((other) => other.id === token.id);
    parts.push(percent(token.logprob), `${(-token.logprob / Math.LN2).toFixed(1)} bits`);
    if (rank >= 0 && rank < ALTERNATIVES) parts.push(rank === 0 ? "the likeliest" : `number ${rank + 1}`);
  }
  $("chosen").replaceChildren(code, ` · ${parts.join(" · ")}`);
}

function alternative(at, other) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const code = document.createElement("code");
  const figure = document.createElement("span");
  button.type = "button";
  code.textContent = shown(other.token);
  figure.textContent = percent(other.logprob);
  button.style.setProperty("--w", 100 * Math.exp(other.logprob));
  button.classList.toggle("taken", other.id === tokens[at].id);
  button.setAttribute("aria-label", `go on with ${shown(other.token)}: ${percent(other.logprob)}`);
  button.append(code, figure);
  button.addEventListener("click", () => goOnFrom(at, other));
  item.append(button);
  return item;
}

function move(event, list, at) {
  const last = list.length - 1;
  const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
  if (to === undefined) return -1;
  event.preventDefault();
  return Math.min(last, Math.max(0, to));
}

$("text").addEventListener("click", (event) => {
  const element = event.target.closest(".token");
  if (element) select(Number(element.dataset.at), true);
});
$("text").addEventListener("keydown", (event) => {
  const at = Number(event.target.dataset.at);
  const to = move(event, $("text").children, at);
  if (to >= 0) select(to, true);
  else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    if (selected !== at) select(at, true);
    $("others").querySelector("button")?.focus();
  }
});
$("others").addEventListener("keydown", (event) => {
  const buttons = [...$("others").querySelectorAll("button")];
  const to = move(event, buttons, buttons.indexOf(event.target));
  if (to >= 0) buttons[to].focus();
});
$("close").addEventListener("click", () => leave());

function leave() {
  const at = selected;
  select(-1);
  const element = $("text").children[at];
  if (element) {
    $("text").children[0].tabIndex = -1;
    element.tabIndex = 0;
    element.focus({ preventScroll: true });
  }
}

// ---- the other view: tokens of any text ----

let latest = 0;
let waiting = 0;

async function split() {
  const text = $("words").value;
  const number = ++latest;
  if (text === "") {
    $("chips").replaceChildren();
    $("copy_ids").disabled = true;
    return say("", false, "figures");
  }
  try {
    const body = { prompt: text, return_token_strs: true, parse_special: $("words_special").checked };
    const said = await (await ask("/tokenize", body)).json();
    if (number === latest) showSplit(text, said);
  } catch (error) {
    if (number === latest) say(error.message, true, "figures");
  }
}

function showSplit(text, said) {
  const list = said.token_strs.map((spelled) => ({ spelled }));
  const chips = textsOf(list).map((part, i) => {
    const chip = document.createElement("span");
    chip.className = "chip";
    chip.title = `${shown(said.token_strs[i])} · id ${said.tokens[i]}`;
    chip.dataset.id = said.tokens[i];
    if (part === "") addMark(chip, "·");
    for (const [at, line] of part.split("\n").entries()) {
      if (at > 0) {
        addMark(chip, "⏎");
        chip.append("\n");
      }
      chip.append(line);
    }
    return chip;
  });
  $("chips").replaceChildren(...chips);
  $("copy_ids").disabled = false;
  const bytes = new TextEncoder().encode(text).length;
  const letters = Array.from(text).length;
  say(`${said.count} tokens · ${letters} characters · ${bytes} bytes · ${(bytes / said.count).toFixed(2)} bytes a token`, false, "figures");
}

function splitSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(split, 120);
}
$("words").addEventListener("input", splitSoon);
$("words_special").addEventListener("change", split);
$("copy_ids").addEventListener("click", () => {
  const list = [...$("chips").children].map((chip) => chip.dataset.id);
  copy(`[${list.join(", ")}]`, "figures");
});

// ---- the rest of the page ----

async function copy(text, where) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.", false, where);
  } catch {
    say("The browser does not let this page copy.", true, where);
  }
}

const views = ["write", "split"];
function show(name, takesFocus = false) {
  for (const view of views) {
    const isShown = view === name;
    $(view).hidden = !isShown;
    $(`tab-${view}`).setAttribute("aria-selected", String(isShown));
    $(`tab-${view}`).tabIndex = isShown ? 0 : -1;
    if (isShown && takesFocus) $(`tab-${view}`).focus();
  }
  if (name === "split" && $("words").value === "" && tokens.length) {
    $("words").value = textsOf(tokens).join("");
    split();
  }
}
for (const view of views) {
  $(`tab-${view}`).addEventListener("click", () => show(view));
  $(`tab-${view}`).addEventListener("keydown", (event) => {
    const to = move(event, views, views.indexOf(view));
    if (to >= 0) show(views[to], true);
  });
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); start(); });
$("halt").addEventListener("click", () => running?.abort());
$("back").addEventListener("click", goBack);
$("more").addEventListener("click", goOn);
$("copy").addEventListener("click", () => copy(textsOf(tokens).join(""), "status"));
$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  sessionStorage.setItem("key", key);
  $("door").hidden = true;
  greet();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (running) running.abort();
    else if (selected >= 0) leave();
  } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!$("write").hidden) start();
  }
});

for (const span of document.querySelectorAll(".legend span")) {
  span.style.setProperty("--s", depth(Math.log(Number(span.dataset.p))));
}
// What is wrong in there could not be shown while it is closed.
$("sampling").addEventListener("invalid", () => { $("sampling").open = true; }, true);
$("sampling").open = matchMedia("(min-width: 56rem)").matches;

async function greet() {
  try {
    const model = (await (await ask("/v1/models")).json()).data[0];
    $("model").textContent = `${model.id} · context ${model.max_model_len.toLocaleString("en")} tokens`;
    document.title = `${model.id} · cs336lm`;
    say("");
  } catch (error) {
    say(error.message, true);
  }
}
greet();
