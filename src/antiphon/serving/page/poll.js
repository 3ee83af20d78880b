// Looking again and again, while a view is shown and somebody can see it.

export class Poll {
  /** @param {() => Promise<number>} look  what is done each time; the milliseconds until the next */
  constructor(look) {
    this.act = look
    this.timer = 0
    this.isShown = false
    this.isLooking = false
    document.addEventListener("visibilitychange", () => this.look())
  }

  start() {
    this.isShown = true
    this.look()
  }

  stop() {
    this.isShown = false
    clearTimeout(this.timer)
  }

  /** Now, and not only when it is time. */
  async look() {
    clearTimeout(this.timer)
    if (!this.isShown || document.hidden || this.isLooking) return
    this.isLooking = true
    const pause = await this.act()
    this.isLooking = false
    clearTimeout(this.timer)
    if (this.isShown) this.timer = setTimeout(() => this.look(), pause)
  }
}
