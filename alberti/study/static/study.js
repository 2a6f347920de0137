"use strict";
// Shows one pair after the other. Two backends: the server (every answer is posted), and an exported page (kept in this browser).
(() => {
  const $ = (id) => document.getElementById(id);
  const settings = JSON.parse($("settings").textContent);
  const labels = settings.labels;
  const GAP = 12, FRAME = 10;  // between the pictures; around them, for the outline of the chosen one
  const VIEWS = ["consent", "intro", "trial", "end", "notice"];
  const LEFT_KEYS = ["ArrowLeft", "ArrowUp", "f", "F"];
  const RIGHT_KEYS = ["ArrowRight", "ArrowDown", "j", "J"];

  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

  function show(view) {
    for (const name of VIEWS) if ($(name)) $(name).hidden = name !== view;
    if (view !== "trial" && $(view)) $(view).focus();
    window.scrollTo(0, 0);
  }

  function notice(text) {
    $("notice-text").textContent = text;
    show("notice");
  }

  // -- backends ------------------------------------------------------------------------------------------------------

  class Conflict extends Error {}
  class Gone extends Error {}

  const server = {
    async call(path, body) {
      for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
        let response = null;
        try {
          response = await fetch(path, body === undefined ? { cache: "no-store" } : {
            method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), cache: "no-store",
          });
          if (response.ok) { $("message").textContent = ""; return await response.json(); }
        } catch (error) { /* offline, or the server is restarting */ }
        if (response && response.status === 409) throw new Conflict();
        if (response && response.status === 401) throw new Gone();
        if (response && response.status < 500 && response.status !== 429 && response.status !== 408) throw new Error(String(response.status));
        if (body !== undefined) $("message").textContent = labels.saving;
        await sleep(wait);
      }
    },
    start: () => server.call("/api/state"),
    answer: (given) => server.call("/api/answer", given),
    withdraw: () => server.call("/api/withdraw", {}),
  };

  // An exported study: series of all raters are in the page, answers in localStorage until they are saved or posted.
  const exported = {
    load() {
      const text = localStorage.getItem(settings.key);
      this.kept = text ? JSON.parse(text) : null;
      return this.kept;
    },
    save() { localStorage.setItem(settings.key, JSON.stringify(this.kept)); },
    begin() {
      const query = new URLSearchParams(location.search);
      const asked = query.has("slot") ? Number(query.get("slot")) : NaN;
      const slots = settings.series.length;
      const slot = Number.isInteger(asked) && asked >= 0 && asked < slots ? asked : Math.floor(Math.random() * slots);
      const parameters = {};
      for (const name of ["PROLIFIC_PID", "STUDY_ID", "SESSION_ID", "workerId", "assignmentId", "hitId"]) {
        if (query.get(name)) parameters[name] = query.get(name).slice(0, 128);
      }
      this.kept = { study: settings.study, design: settings.design, rater: crypto.randomUUID(), slot, parameters, withdrawn: false, answers: [] };
      this.save();
    },
    state(feedback = null) {
      if (this.kept.withdrawn) return { phase: "withdrawn" };
      const series = settings.series[this.kept.slot];
      const index = this.kept.answers.length;
      if (index >= series.length) {
        return { phase: "done", code: settings.code || this.kept.rater.slice(0, 8).toUpperCase(), url: settings.url, feedback };
      }
      const [block, practice, left, right] = series[index];
      const ids = [settings.pictures[left], settings.pictures[right]];
      const following = series.slice(index + 1, index + 2).flatMap((trial) => [settings.pictures[trial[2]], settings.pictures[trial[3]]]);
      const url = (id) => `pictures/${id}.png`;
      return {
        phase: "trial", feedback, preload: following.map(url),
        trial: {
          index, total: series.length, block, blocks: settings.blocks.length, first: index === 0 || series[index - 1][0] !== block,
          question: settings.blocks[block].question, hint: settings.blocks[block].hint, practice: practice !== 0, ids,
          size: settings.sizes[left], left: url(ids[0]), right: url(ids[1]),
        },
      };
    },
    async start() { return this.state(); },
    async answer(given) {
      const right = settings.series[this.kept.slot][given.trial][1];  // 0: no practice, 1: without a right answer, 2: left, 3: right
      this.kept.answers.push({ ...given, at: new Date().toISOString() });
      this.save();
      const feedback = right < 2 ? null : given.chosen === (right === 2 ? "left" : "right");
      const state = this.state(feedback);
      if (state.phase === "done") await this.deliver();
      return state;
    },
    async deliver() {
      if (!settings.post) return;
      for (let tries = 0; tries < 5; tries++) {
        try {
          const sent = await fetch(settings.post, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(this.kept) });
          if (sent.ok) { this.kept.posted = true; this.save(); return; }
        } catch (error) { /* tried again */ }
        $("message").textContent = labels.saving;
        await sleep(1000 * 2 ** tries);
      }
    },
    async withdraw() { this.kept.withdrawn = true; this.kept.answers = []; this.save(); return this.state(); },
    offerFile() {
      if (this.kept.posted) return;
      const blob = new Blob([JSON.stringify(this.kept, null, 1)], { type: "application/json" });
      $("download").href = URL.createObjectURL(blob);
      $("download").download = `${settings.study}-${this.kept.rater}.json`;
      $("download-line").hidden = false;
    },
  };

  const isExported = "series" in settings;
  const backend = isExported ? exported : server;

  // -- one pair ------------------------------------------------------------------------------------------------------

  let current = null;      // the state on the screen
  let shownAt = null;      // when both pictures were on the screen; null: no choice is taken
  let loaded = false;      // whether the pictures may be seen
  let pointer = "mouse";
  let preloaded = [];
  let round = 0;

  function fit() {
    if (!current || current.phase !== "trial" || $("trial").hidden) return;
    const [width, height] = current.trial.size;
    const stage = $("stage"), aspect = width / height;
    const wide = stage.clientWidth - FRAME, high = stage.clientHeight - FRAME;
    const row = Math.min((wide - GAP) / 2, high * aspect);
    const column = Math.min(wide, ((high - GAP) / 2) * aspect);
    const layout = column > row ? "column" : "row";
    const shown = Math.floor(Math.min(Math.max(row, column), Math.max(2 * width, 480, settings.minimum)));
    stage.dataset.layout = layout;
    for (const side of ["left", "right"]) {
      $(side).style.width = `${shown}px`;
      $(side).style.height = `${Math.round(shown / aspect)}px`;
    }
    $("left-picture").alt = layout === "row" ? labels.first : labels.upper;
    $("right-picture").alt = layout === "row" ? labels.second : labels.lower;
    const small = shown < settings.minimum;
    stage.classList.toggle("waiting", small || !loaded);
    if (small) $("message").textContent = labels.too_small;
    else if ($("message").textContent === labels.too_small) $("message").textContent = "";
    return !small;
  }

  function enable(on) {
    for (const side of ["left", "right"]) $(side).disabled = !on;
  }

  async function showTrial() {
    const mine = ++round, trial = current.trial;
    shownAt = null;
    loaded = false;
    enable(false);
    show("trial");
    $("feedback").hidden = true;
    $("left").classList.remove("chosen");
    $("right").classList.remove("chosen");
    $("question").textContent = trial.question;
    $("hint").textContent = trial.hint;
    $("hint").hidden = !trial.hint;
    $("count").textContent = (trial.practice ? `${labels.practice}. ` : "") + fill(labels.progress, { done: trial.index + 1, total: trial.total });
    $("progress").max = trial.total;
    $("progress").value = trial.index;
    fit();
    const late = setTimeout(() => { if (mine === round) $("message").textContent = labels.loading; }, 400);
    while (!(await bothLoaded(trial))) await sleep(1000);
    clearTimeout(late);
    if (mine !== round) return;
    if ($("message").textContent === labels.loading) $("message").textContent = "";
    loaded = true;
    fit();
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (mine !== round) return;
      shownAt = performance.now();
      enable(fit());
      preload();
    }));
  }

  async function bothLoaded(trial) {
    try {
      for (const side of ["left", "right"]) {
        const image = $(`${side}-picture`);
        if (image.getAttribute("src") !== trial[side] || image.naturalWidth === 0) image.src = trial[side];
      }
      await Promise.all([$("left-picture").decode(), $("right-picture").decode()]);
      return true;
    } catch (error) {
      $("left-picture").removeAttribute("src");
      $("right-picture").removeAttribute("src");
      return false;
    }
  }

  function preload() {
    preloaded = current.preload.map((url) => { const image = new Image(); image.src = url; return image; });
  }

  async function choose(chosen, device) {
    if (shownAt === null || $(chosen).disabled || !fit()) return;
    const trial = current.trial, ms = Math.round((performance.now() - shownAt) * 10) / 10;
    const given = {
      trial: trial.index, left: trial.ids[0], right: trial.ids[1], chosen, ms, layout: $("stage").dataset.layout, device,
      window: [Math.max(1, Math.round(window.innerWidth)), Math.max(1, Math.round(window.innerHeight))],
    };
    shownAt = null;
    enable(false);
    $(chosen).classList.add("chosen");
    try {
      const state = await backend.answer(given);
      if (state.feedback === null) go(state);
      else giveFeedback(state);
    } catch (error) {
      if (error instanceof Conflict) go(await backend.start());  // answered in another tab: go on from where the server is
      else fail(error);
    }
  }

  function giveFeedback(state) {
    $("verdict").textContent = state.feedback ? labels.right_answer : labels.wrong_answer;
    $("feedback").hidden = false;
    fit();
    $("next").onclick = () => { $("next").onclick = null; go(state); };
    $("next").focus();
  }

  // -- from one state to the next ------------------------------------------------------------------------------------

  function go(state) {
    current = state;
    if (state.phase === "withdrawn") { round++; notice(labels.withdrawn); return; }
    if (state.phase === "done") { round++; finish(); return; }
    if (state.trial.first) introduce();
    else showTrial();
  }

  function introduce() {
    const trial = current.trial;
    $("instructions").hidden = trial.index !== 0;
    $("part").textContent = trial.blocks > 1 ? fill(labels.part, { number: trial.block + 1, of: trial.blocks }) : "";
    $("intro-question").textContent = trial.question;
    $("intro-hint").textContent = trial.hint;
    preload();
    preloaded.push(...["left", "right"].map((side) => { const image = new Image(); image.src = trial[side]; return image; }));
    show("intro");
    $("start").onclick = () => { $("start").onclick = null; showTrial(); };
  }

  function finish() {
    $("code").textContent = current.code || "";
    $("code-line").hidden = !current.code;
    $("return-line").hidden = !current.url;
    if (current.url) $("return").href = current.url;
    if (isExported) exported.offerFile();
    show("end");
  }

  function fail(error) {
    notice(error instanceof Gone ? labels.gone : labels.failed);
  }

  $("intro").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === $("intro")) $("start").click();
  });
  document.addEventListener("keydown", (event) => {
    if ($("trial").hidden || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const chosen = LEFT_KEYS.includes(event.key) ? "left" : RIGHT_KEYS.includes(event.key) ? "right" : null;
    if (!chosen) return;
    event.preventDefault();
    choose(chosen, "key");
  });
  document.addEventListener("pointerdown", (event) => { pointer = event.pointerType || "mouse"; });
  for (const side of ["left", "right"]) {
    $(side).addEventListener("click", (event) => choose(side, event.detail === 0 ? "key" : pointer));
    $(`${side}-picture`).addEventListener("dragstart", (event) => event.preventDefault());
  }
  window.addEventListener("resize", () => { const large = fit(); if (shownAt !== null) enable(Boolean(large)); });
  $("withdraw").addEventListener("click", async () => {
    if (!window.confirm(labels.withdraw_sure)) return;
    try { go(await backend.withdraw()); } catch (error) { fail(error); }
  });

  async function run() {
    try { go(await backend.start()); } catch (error) { fail(error); }
  }

  if (isExported && !exported.load()) {
    show("consent");
    $("begin").addEventListener("click", () => {
      if (!$("agree").checked) { $("missed").hidden = false; $("agree").focus(); return; }
      exported.begin();
      run();
    });
  } else {
    run();
  }
})();
