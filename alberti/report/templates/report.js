(() => {
  const buttons = document.querySelectorAll("[data-overlay]");
  buttons.forEach((button) => button.addEventListener("click", () => {
    document.body.dataset.mode = button.dataset.overlay;
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other.dataset.overlay === button.dataset.overlay)));
  }));
  const lightbox = document.getElementById("lightbox");
  document.querySelectorAll(".frame").forEach((frame) => frame.addEventListener("click", () => {
    const stage = lightbox.querySelector(".stage");
    stage.replaceChildren(...[...frame.children].map((child) => child.cloneNode(true)));
    stage.style.aspectRatio = frame.style.aspectRatio;
    const words = frame.closest(".tile").querySelectorAll("figcaption > *");
    lightbox.querySelector("p").textContent = [...words].map((word) => word.textContent).join("  ");
    lightbox.showModal();
  }));
  lightbox.addEventListener("click", (event) => { if (event.target === lightbox) lightbox.close(); });
})();
