import type { ApiKeyListener } from 'latchkey'

/** Events name the precise reason of a refusal, which clients never see. They never hold a key. */
export function printEvents(program: string): ApiKeyListener {
  return (event) => {
    if (event.type === 'fault') {
      console.error(program, event.operation, String(event.error))
      return
    }
    const reason = event.type === 'key.refused' ? (event.reason ?? event.code) : ''
    const keyId = 'keyId' in event ? event.keyId : ''
    console.log([program, event.type, reason, keyId].filter(Boolean).join(' '))
  }
}
