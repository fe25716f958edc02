import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { diag } from '@opentelemetry/api'
import type { LatchkeyChannels } from '../core/diagnostics/messages.ts'

type Listeners = { readonly [Name in keyof LatchkeyChannels]?: (message: LatchkeyChannels[Name]) => void }

/** Listens to these channels, and returns what ends the listening. What a listener throws goes to OpenTelemetry's log. */
export function listen(listeners: Listeners): () => void {
  const listening = Object.entries(listeners).map(([name, listener]) => {
    const quiet = quietly(listener as (message: unknown) => void)
    subscribe(name, quiet)
    return () => void unsubscribe(name, quiet)
  })
  return () => {
    for (const end of listening) end()
  }
}

/** Node makes an uncaught exception of what a subscriber throws, which would end the process. */
function quietly(listener: (message: unknown) => void): (message: unknown) => void {
  return (message) => {
    try {
      listener(message)
    } catch (error) {
      tell(error)
    }
  }
}

function tell(error: unknown): void {
  try {
    diag.error('latchkey: telemetry could not be recorded', error)
  } catch {
    // The log is the application's, and may be broken too.
  }
}
