// The study's page: shows one question at a time and goes on when the server has kept the answer.
"use strict";

const TIE = "tie";
const SHOW_CHOICE_MS = 180;
const LONGEST_WAIT_MS = 5000;
const PATIENCE_MS = 15000;
const SMALL_PICTURE = 160;

const home = location.pathname.replace(/\/$/, "");
const pictures = new Map();
let study = null;
let item = 0;
let question = 0;
let busy = false;

const element = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// The server's reply; while it cannot be reached or fails, the notice says so and the request is sent again.
async function ask(method, path, body) {
  for (let wait = 500; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
    try {
      const reply = await fetch(`${home}/${path}`, {
        method,
        headers: body ? { "Content-Type": "application/json" } : {},
        body: body && JSON.stringify(body),
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (reply.status < 500) {
        element("notice").textContent = "";
        return reply;
      }
    } catch {
      // No connection: the same as a failing server.
    }
    element("notice").textContent = "No connection. Nothing is lost; trying again …";
    await pause(wait);
  }
}

async function load() {
  const reply = await ask("GET", "state");
  if (!reply.ok) return location.reload();
  study = await reply.json();
  if (study.finished) return show("thanks");
  if (!study.consented) return show("welcome");
  item = study.items.findIndex((one) => firstOpen(one) >= 0);
  if (item < 0) return showEnd();
  question = firstOpen(study.items[item]);
  showQuestion();
}

function firstOpen(one) {
  return study.questions.findIndex(({ name }) => one.answers[name] === undefined);
}

function show(id) {
  for (const part of ["welcome", "judge", "end", "thanks"]) element(part).hidden = part !== id;
  element(id).querySelector("h1, h2").focus({ preventScroll: true });
}

function showEnd() {
  item = study.items.length;
  show("end");
  scrollTo(0, 0);
}

function showQuestion() {
  const shown = study.items[item];
  const asked = study.questions[question];
  const check = shown.instruction !== null;
  if (element("choices").dataset.item !== String(item)) showPictures(shown);
  element("count").textContent = `Picture ${item + 1} of ${study.items.length}`;
  const given = study.items.reduce((sum, one) => sum + Object.keys(one.answers).length, 0);
  element("progress").max = study.items.length * study.questions.length;
  element("progress").value = given;
  element("lead").textContent = check ? "A quick check that you are still with us" : "The gap was to be filled with";
  element("prompt").textContent = check ? "Please follow the instruction below." : `“${shown.prompt}”`;
  element("question").textContent = check
    ? `Please choose result ${shown.instruction}, whatever it looks like.`
    : asked.text;
  showTabs(shown);
  mark(shown.answers[asked.name]);
  element("back").disabled = item === 0 && question === 0;
  show("judge");
  element("spoken").textContent =
    `Picture ${item + 1} of ${study.items.length}, question ${question + 1} of ${study.questions.length}`;
}

function showTabs(shown) {
  element("tabs").hidden = study.questions.length === 1;
  element("tabs").replaceChildren(
    ...study.questions.map(({ name, title }, index) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.textContent = title;
      tab.classList.toggle("done", shown.answers[name] !== undefined);
      if (index === question) tab.setAttribute("aria-current", "step");
      tab.addEventListener("click", () => goTo(item, index));
      const entry = document.createElement("li");
      entry.append(tab);
      return entry;
    }),
  );
}

function showPictures(shown) {
  const choices = element("choices");
  const before = card("figure", picture(shown.masked, "The picture with the gap"), "figcaption", "Before, with the gap");
  before.classList.add("before");
  const results = shown.results.map((name, index) => {
    const number = index + 1;
    const result = card("label", picture(name, `Result ${number}`), "span", "");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "choice", value: String(number) });
    const key = document.createElement("kbd");
    key.textContent = number;
    result.lastChild.append(radio, `Result ${number}`, key);
    return result;
  });
  choices.replaceChildren(before, ...results);
  choices.dataset.item = item;
  choices.style.setProperty("--columns", Math.min(results.length + 1, 5));
  choices.classList.toggle("odd", results.length % 2 === 0);
  element("last-key").textContent = results.length;
  const next = study.items[item + 1];
  if (next) [next.masked, ...next.results].forEach((name) => picture(name, ""));
  scrollTo(0, 0);
}

function card(kind, image, captionKind, caption) {
  const made = document.createElement(kind);
  made.className = "card";
  const name = document.createElement(captionKind);
  name.className = "name";
  name.textContent = caption;
  made.append(image, name);
  return made;
}

// Kept once made: nothing may be cached by the browser, and the next item's pictures load ahead.
function picture(name, alt) {
  if (!pictures.has(name)) {
    const image = new Image();
    image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth <= SMALL_PICTURE));
    image.src = `${home}/pictures/${name}`;
    pictures.set(name, image);
  }
  const image = pictures.get(name);
  image.alt = alt;
  return image;
}

function radios() {
  return [...element("form").querySelectorAll("input[name=choice]")];
}

function mark(choice) {
  for (const radio of radios()) radio.checked = radio.value === String(choice);
}

function goTo(newItem, newQuestion) {
  if (busy) return;
  item = newItem;
  question = newQuestion;
  showQuestion();
}

function goBack() {
  if (item === study.items.length || question === 0) {
    if (item > 0) goTo(item - 1, study.questions.length - 1);
  } else {
    goTo(item, question - 1);
  }
}

function goOn() {
  if (question + 1 < study.questions.length) return goTo(item, question + 1);
  if (item + 1 < study.items.length) return goTo(item + 1, 0);
  showEnd();
}

async function choose(value) {
  if (busy) return;
  busy = true;
  mark(value);
  const { name } = study.questions[question];
  const choice = value === TIE ? TIE : Number(value);
  const [reply] = await Promise.all([
    ask("PUT", `answers/${item + 1}/${name}`, { choice }),
    pause(SHOW_CHOICE_MS),
  ]);
  busy = false;
  if (!reply.ok) return load();
  study.items[item].answers[name] = choice;
  goOn();
}

function confirm() {
  const chosen = radios().find((radio) => radio.checked);
  if (chosen) choose(chosen.value);
  else element("notice").textContent = "Please choose a result, or “No difference”.";
}

// Arrows only move the mark, Enter confirms; a click or a digit does both at once.
function moveMark(step) {
  const all = radios();
  const at = all.findIndex((radio) => radio.checked);
  const to = at < 0 ? (step > 0 ? 0 : all.length - 1) : (at + step + all.length) % all.length;
  all[to].checked = true;
  all[to].focus();
}

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || element("judge").hidden || busy) return;
  const number = Number(event.key);
  const upOrDown = event.key === "ArrowUp" || event.key === "ArrowDown";
  if (upOrDown && event.target.name !== "choice") return; // scrolls the page
  element("notice").textContent = "";
  if (event.key in STEPS) moveMark(STEPS[event.key]);
  else if (number >= 1 && number <= study.items[item].results.length) choose(event.key);
  else if (event.key.toLowerCase() === "t") choose(TIE);
  else if (event.key === "Backspace") goBack();
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON") confirm();
  else return;
  event.preventDefault();
}

// A click on a card ends as a click on its radio button; so does the space bar.
function onClick(event) {
  if (event.target.name === "choice") choose(event.target.value);
}

element("agree").addEventListener("click", async () => {
  await ask("POST", "consent");
  await load();
});
element("finish").addEventListener("click", async () => {
  await ask("POST", "finish");
  await load();
});
element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  confirm();
});
element("form").addEventListener("click", onClick);
element("back").addEventListener("click", goBack);
element("review").addEventListener("click", goBack);
document.addEventListener("keydown", onKey);
load();
