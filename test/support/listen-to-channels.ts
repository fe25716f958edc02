import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { LatchkeyChannels } from 'latchkey'
import { onTestFinished } from 'vitest'

type Name = keyof LatchkeyChannels

export interface Heard {
  /** The messages of a channel so far. */
  on<N extends Name>(name: N): LatchkeyChannels[N][]
  /** Forgets the messages so far. */
  forget(): void
  /** Every message so far, as text: to search for what must not be in it. */
  text(): string
}

/** Hears what is published on these channels until the test has ended. */
export function listenToChannels(...names: readonly Name[]): Heard {
  const heard: { name: Name; message: unknown }[] = []
  for (const name of names) {
    const hear = (message: unknown) => void heard.push({ name, message })
    subscribe(name, hear)
    onTestFinished(() => void unsubscribe(name, hear))
  }
  return {
    on: (name) => heard.filter((one) => one.name === name).map(({ message }) => message as never),
    forget: () => void heard.splice(0),
    text: () => JSON.stringify(heard),
  }
}
