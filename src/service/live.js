"use strict";
// Shows how a build goes on; without a script, the page is as old as it is.
const log = document.getElementById("log");
const state = document.getElementById("state");
const goesOn = ["queued", "leased"].includes(state.textContent);
const events = new EventSource(log.dataset.events);
events.addEventListener("build", (event) => {
    const build = JSON.parse(event.data);
    log.textContent = build.log;
    state.textContent = build.state;
});
events.addEventListener("end", () => {
    events.close();
    // The rest of the page is as it was before.
    if (goesOn) location.reload();
});
