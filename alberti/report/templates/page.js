(() => {
  const body = document.body;
  const buttons = document.querySelectorAll("button[data-overlay]");
  buttons.forEach((button) => button.addEventListener("click", () => {
    body.dataset.overlay = button.dataset.overlay;
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other.dataset.overlay === body.dataset.overlay)));
  }));

  const lightbox = document.getElementById("lightbox");
  let shown = [], place = 0;
  const show = (index) => {
    place = (index + shown.length) % shown.length;
    const frame = shown[place], stage = lightbox.querySelector(".stage");
    stage.replaceChildren(...[...frame.children].map((child) => child.cloneNode(true)));
    stage.style.aspectRatio = frame.style.aspectRatio;
    stage.style.setProperty("--ratio", frame.style.aspectRatio);
    lightbox.querySelector("p").textContent = frame.closest("figure").querySelector("figcaption").textContent.replace(/\s+/g, " ").trim();
  };
  document.querySelectorAll(".frame").forEach((frame) => frame.addEventListener("click", () => {
    shown = [...(frame.closest(".scene") || document).querySelectorAll(".frame")];
    lightbox.querySelectorAll("[data-step]").forEach((button) => { button.hidden = shown.length < 2; });
    show(shown.indexOf(frame));
    lightbox.showModal();
  }));
  lightbox.querySelectorAll("[data-step]").forEach((button) =>
    button.addEventListener("click", () => show(place + Number(button.dataset.step))));
  lightbox.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && shown.length > 1) { event.preventDefault(); show(place + step); }
  });
  lightbox.addEventListener("click", (event) => { if (event.target === lightbox) lightbox.close(); });

  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const explain = (element) => {
    tip.textContent = element.dataset.tip;
    tip.hidden = false;
    const box = element.getBoundingClientRect(), width = Math.min(tip.offsetWidth, innerWidth - 16);
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
    const above = box.top - tip.offsetHeight - 6;
    tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
  };
  document.querySelectorAll("[data-tip]").forEach((element) => {
    element.addEventListener("mouseenter", () => explain(element));
    element.addEventListener("focus", () => explain(element));
    element.addEventListener("mouseleave", hide);
    element.addEventListener("blur", hide);
  });
  addEventListener("scroll", hide, { passive: true, capture: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("beforeprint", () => document.querySelectorAll("details[data-print]").forEach((one) => { one.open = true; }));
})();
