export { type RemoteApiKeys, type RemoteApiKeysOptions, remoteApiKeys } from './remote-api-keys.ts'
export type { VerifyingClient } from './service-questions.ts'
